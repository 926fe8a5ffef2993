/* Floats in fewer bits, many at a time, in steps that compilers vectorise for any instruction set. */
#ifndef EK_NARROW_H
#define EK_NARROW_H

#include <stddef.h>
#include <stdint.h>

/* IEEE 754 binary16, rounded to nearest, ties to even; what is larger than 65504, infinity too, becomes that. */
void ek_half_from_float(uint16_t *to, const float *from, size_t count);

void ek_half_to_float(float *to, const uint16_t *from, size_t count);

/* rows × columns floats with 256 steps between each column's least and largest: two floats a column (least, step), then a byte an
 * element. */
size_t ek_byte_size(size_t rows, size_t columns);

void ek_byte_from_float(uint8_t *to, const float *from, size_t rows, size_t columns);

void ek_byte_to_float(float *to, const uint8_t *from, size_t rows, size_t columns);

#endif
