/* A fuzz target (LLVM's interface): whatever the bytes are, opening them as a .npy file must not read outside them, and what is
 * accepted must have all the data that its shape promises. A header that the runner writes must be accepted again. */
#include <stdlib.h>
#include <string.h>

#include "../runner/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t product(const ek_npy *array)
{
    uint64_t items = 1;
    for (uint32_t i = 0; i < array->rank; i++)
        items *= array->dim[i];
    return items;
}

static void read_all(const ek_npy *array)
{
    unsigned sum = 0;
    for (uint64_t i = 0; i < product(array) * array->item_bytes; i++)
        sum += array->data[i];
    __asm__ volatile("" : : "r"(sum)); /* the reads must not be optimised away */
}

/* Write the header of an array of the same shape and read it back; only where it has no data, which would have to follow. */
static void write_and_read(const ek_npy *array)
{
    uint8_t header[EK_NPY_HEADER_BYTES];
    uint32_t dim[EK_MAX_RANK];
    ek_npy again;
    ek_error error;
    if (product(array) > 0 || array->rank > EK_MAX_RANK)
        return;
    for (uint32_t i = 0; i < array->rank; i++)
        dim[i] = (uint32_t)array->dim[i];
    ek_npy_header(header, EK_F32, dim, array->rank);
    if (header[EK_NPY_HEADER_BYTES - 1] != '\n')
        abort();
    ek_status status = ek_npy_open(&again, header, sizeof header, &error);
    for (uint32_t i = 0; i < array->rank; i++)
        if (again.rank != array->rank || again.dim[i] != dim[i])
            abort();
    uint64_t items = product(&again);
    if ((status == EK_OK) != (items == 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = malloc(size ? size : 1); /* exactly as long, so that a sanitizer sees a read past it */
    ek_npy array;
    ek_error error;
    memcpy(file, data, size);
    if (ek_npy_open(&array, file, size, &error) == EK_OK) {
        read_all(&array);
        write_and_read(&array);
    }
    free(file);
    return 0;
}
