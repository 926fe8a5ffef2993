/* The factors from · w / to of a product's channels, as ek_fixed_point of quant.h has them, where doubles are software: the ratio
 * from / to once, and for each channel 44 bits of its product with w. They are not enough where they lie at half a unit of m, give or
 * take what they leave out and what rounding to a double does: one time in some thousand. */
#ifndef EK_Q_FACTOR_H
#define EK_Q_FACTOR_H

#include "quant.h"

typedef struct {
    double from, to;
    uint64_t ratio; /* from / to = ratio · 2^exponent, of 53 bits; 0 where that is no number of reasonable size */
    int exponent;
} ek_ratio;

static inline ek_ratio ek_ratio_of(double from, double to) {
    ek_ratio r = {from, to, 0, 0};
    double ratio = from / to;
    if (!(ratio >= 0x1p-100 && ratio <= 0x1p100)) return r;
    memcpy(&r.ratio, &ratio, sizeof ratio);
    r.ratio = (r.ratio & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
    r.exponent = ek_exponent(ratio) - 53;
    return r;
}

static __attribute__((noinline, unused)) ek_factor ek_factor_by_doubles(const ek_ratio *r, float w) {
    return ek_fixed_point(r->from * (double)w / r->to);
}

static inline ek_factor ek_factor_of(const ek_ratio *r, float w) {
    uint32_t bits;
    memcpy(&bits, &w, sizeof w);
    uint32_t e = bits >> 23, fraction = (bits & 0x7FFFFF) | 0x800000; /* w = fraction · 2^(e - 150), of 24 bits; the sign is in e */
    uint64_t product = (r->ratio >> 32) * fraction + ((r->ratio & UINT32_MAX) * fraction >> 32); /* of 44 or 45 bits, · 2^32 */
    int cut = product >> 44 ? 14 : 13, shift = 118 - cut - r->exponent - (int)e;
    uint32_t half = 1u << (cut - 1), left = (uint32_t)product & (2 * half - 1);
    if (!r->ratio || e - 1 >= 254 || shift < 16 || shift > 60 || left - half + 2 <= 4) return ek_factor_by_doubles(r, w);
    uint32_t m = (uint32_t)((product + half) >> cut);
    return m >> 31 ? (ek_factor){(int32_t)(m >> 1), shift - 1} : (ek_factor){(int32_t)m, shift};
}

#endif
