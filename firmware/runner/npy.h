/* The NumPy file format, versions 1.0 to 3.0 (numpy.lib.format): a strict parser of its header, and a writer. */
#ifndef EK_NPY_H
#define EK_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "../core/program.h"

enum { EK_NPY_RANK = 8 };

typedef enum { EK_NPY_F4, EK_NPY_F8, EK_NPY_U1, EK_NPY_I1, EK_NPY_I2, EK_NPY_I4, EK_NPY_I8 } ek_npy_type;

/* An array in a file's bytes: C order, little-endian, `data` aligned to nothing. */
typedef struct {
    ek_npy_type type;
    uint32_t item_bytes, rank;
    uint64_t dim[EK_NPY_RANK];
    const uint8_t *data;
} ek_npy;

/* Parse a whole file. BAD_DATA says what is wrong, without the file's name. */
ek_status ek_npy_open(ek_npy *array, const uint8_t *bytes, size_t size, ek_error *error);

/* "f4", "i8" … */
const char *ek_npy_type_name(ek_npy_type type);

enum { EK_NPY_HEADER_BYTES = 192 };

/* The header (always EK_NPY_HEADER_BYTES) of a C-order array of at most EK_MAX_RANK axes; dtype is not EK_BITS. */
void ek_npy_header(uint8_t *to, uint32_t dtype, const uint32_t *dim, uint32_t rank);

#endif
