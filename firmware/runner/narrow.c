#include "narrow.h"

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

enum { STEPS = 255 };

size_t ek_byte_size(size_t rows, size_t columns) { return columns * (2 * sizeof(float) + rows); }

/* The least element of each column, and a 255th of the way to the largest. */
static void find_ranges(float *least, float *step, const float *from, size_t rows, size_t columns) {
    for (size_t c = 0; c < columns; c++)
        least[c] = step[c] = from[c];
    for (size_t r = 1; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            float x = from[r * columns + c];
            least[c] = x < least[c] ? x : least[c];
            step[c] = x > step[c] ? x : step[c];
        }
    for (size_t c = 0; c < columns; c++)
        step[c] = (step[c] - least[c]) / STEPS;
}

void ek_byte_from_float(uint8_t *to, const float *from, size_t rows, size_t columns) {
    float *least = (float *)(void *)to, *step = least + columns;
    find_ranges(least, step, from, rows, columns);
    to += columns * 2 * sizeof(float);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            float steps = step[c] > 0 ? (from[r * columns + c] - least[c]) / step[c] + 0.5f : 0;
            to[r * columns + c] = (uint8_t)(int)(steps < STEPS ? steps : STEPS);
        }
}

void ek_byte_to_float(float *to, const uint8_t *from, size_t rows, size_t columns) {
    const float *least = (const float *)(const void *)from, *step = least + columns;
    from += columns * 2 * sizeof(float);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            to[r * columns + c] = least[c] + step[c] * (float)from[r * columns + c];
}
