/* int8 arithmetic, exactly as docs/quantization.md defines it: integers alone decide every result. */
#ifndef EK_QUANT_H
#define EK_QUANT_H

#include <math.h>

#include "parallel.h"
#include "simd.h"

typedef struct {
    double scale;
    int32_t zero;
} ek_quant;

/* An array's scale and zero point. Nothing checked them: any bits must do no harm. */
static inline ek_quant ek_quant_of(const float *pair) {
    float zero = pair[1] == pair[1] ? pair[1] : 0.0f;
    zero = zero < -128.0f ? -128.0f : zero > 127.0f ? 127.0f : zero;
    return (ek_quant){pair[0], (int32_t)rintf(zero)};
}

/* A factor m / 2^shift. */
typedef struct {
    int32_t m, shift;
} ek_factor;

/* e of a positive number f 2^e, 1/2 ≤ f < 1. */
static inline int ek_exponent(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (int)(bits >> 52) - 1022;
}

static inline double ek_power_of_two(int e) {
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline ek_factor ek_fixed_point(double factor) {
    if (!(factor >= 0x1p-31 && factor <= 0x1p16)) return (ek_factor){0, 31};
    int shift = 31 - ek_exponent(factor);
    int64_t m = (int64_t)rint(factor * ek_power_of_two(shift));
    if (m == (int64_t)1 << 31) m >>= 1, shift--;
    return (ek_factor){(int32_t)m, shift};
}

EK_INLINE int64_t ek_saturate(int64_t total) {
    return total > INT32_MAX ? INT32_MAX : total < INT32_MIN ? INT32_MIN : total;
}

/* floor(total · factor + 1/2); total is first saturated to int32. */
EK_INLINE int64_t ek_rescale(int64_t total, ek_factor f) {
    return (ek_saturate(total) * f.m + ((int64_t)1 << (f.shift - 1))) >> f.shift;
}

/* Store q clamped; whether nothing was cut off. */
EK_INLINE uint32_t ek_clamp_to(int8_t *y, int64_t q) {
    int64_t near = q < -128 ? -128 : q > 127 ? 127 : q;
    *y = (int8_t)near;
    return near == q;
}

#endif
