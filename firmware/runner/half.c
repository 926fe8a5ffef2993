#include "half.h"

#include <string.h>

/* Between the exponents' biases of the two formats lies 2^112: a float times 2^-112 has the bits of the half, 13 places to the left.
 * Halves below 2^-14 are subnormal floats then, which the product rounds as they need. */
#define BETWEEN 0x1p-112f

enum { LOW_BITS = 13, LARGEST = 0x7BFF };

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void ek_half_from_float(uint16_t *to, const float *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of(from[i]), sign = bits >> 16 & 0x8000u;
        uint32_t small = bits_of(float_of(bits & 0x7FFFFFFFu) * BETWEEN);
        small = (small + ((1u << (LOW_BITS - 1)) - 1) + (small >> LOW_BITS & 1)) >> LOW_BITS;
        to[i] = (uint16_t)(sign | (small > LARGEST ? LARGEST : small));
    }
}

void ek_half_to_float(float *to, const uint16_t *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t magnitude = (uint32_t)(from[i] & 0x7FFFu) << LOW_BITS, sign = (uint32_t)(from[i] & 0x8000u) << 16;
        to[i] = float_of(sign | bits_of(float_of(magnitude) * (1.0f / BETWEEN)));
    }
}
