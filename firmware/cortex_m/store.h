/* All memory that is not static: blocks for the runner, and files, in one region. There is no heap: blocks are few, each is asked
 * for when a program is loaded, a session starts or a file comes, and a table says where they lie.
 *
 * A file that nobody reads gives way, the oldest first, to what needs its room: a host can bring it again. */
#ifndef EK_STORE_H
#define EK_STORE_H

#include "../runner/platform.h"

/* The region: 64-byte aligned. */
void ek_store_open(void *region, size_t bytes);

/* Most bytes of it that were in use at a time. */
size_t ek_store_peak(void);

/* Give a platform the members that are the store's: files, memory and its limit, free room. After ek_store_open. */
void ek_store_join(ek_platform *platform);

#endif
