/* IEEE 754 binary16 and float, many at a time, in integer steps that compilers vectorise for any instruction set. */
#ifndef EK_HALF_H
#define EK_HALF_H

#include <stddef.h>
#include <stdint.h>

/* Rounded to nearest, ties to even; what is larger than 65504, infinity too, becomes that. */
void ek_half_from_float(uint16_t *to, const float *from, size_t count);

void ek_half_to_float(float *to, const uint16_t *from, size_t count);

#endif
