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

size_t ek_store_bytes(void);

/* What files may still take, those that give way counted as gone. */
size_t ek_store_free(void);

/* The members of ek_platform. */
void *ek_store_allocate(size_t bytes);
void ek_store_release(void *memory);
ek_status ek_store_map(const char *path, ek_file *file, ek_error *error);
void ek_store_unmap(ek_file *file);
ek_status ek_store_create(ek_new_file *file, const char *path, uint64_t size, ek_error *error);
ek_status ek_store_write(ek_new_file *file, const void *bytes, size_t size, ek_error *error);
ek_status ek_store_commit(ek_new_file *file, ek_error *error);
void ek_store_abandon(ek_new_file *file);
ek_status ek_store_read_at(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error);
ek_status ek_store_remove(const char *path, ek_error *error);

#endif
