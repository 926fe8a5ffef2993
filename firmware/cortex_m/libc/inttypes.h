/* Formats of the integer types, as this target has them. */
#ifndef EK_LIBC_INTTYPES_H
#define EK_LIBC_INTTYPES_H

#include <stdint.h>

#define PRIu32 __UINT32_FMTu__
#define PRIx32 __UINT32_FMTx__
#define PRId32 __INT32_FMTd__
#define PRIu64 __UINT64_FMTu__
#define PRIx64 __UINT64_FMTx__
#define PRId64 __INT64_FMTd__

#endif
