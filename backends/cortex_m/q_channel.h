/* What follows the sums of x · w of one output channel: what x's zero point adds to them, the bias, the rescaling. */
#ifndef EK_Q_CHANNEL_H
#define EK_Q_CHANNEL_H

#include "dsp.h"
#include "quant.h"

typedef struct {
    int32_t start;          /* what a sum begins with: - zero · the sum of the weights, and the bias */
    int32_t m, round, high; /* its result: (the high word of sum · m + round) >> high; high is 0 where that is not the whole of it */
    int32_t bias, shift;    /* … which then are a bias that saturates, and how far all of sum · m is shifted */
} ek_channel;

/* As a sum of so many products has it. With its bias it wraps around only if it leaves int32. The product's low word does not count
 * where it is shifted out, and its high word, of 31 bits, leaves room for a zero point of up to 22 more. */
EK_INLINE ek_channel ek_channel_of(ek_factor factor, int32_t zero, int32_t result_zero, int32_t weights, int32_t bias, size_t products) {
    int64_t most = INT32_MAX - (int64_t)products * (255 * 128);
    int high = factor.shift - 32, simple = bias <= most && bias >= -most && high > 0 && high <= 22;
    ek_channel c = {-weights * zero, factor.m, 0, 0, bias, factor.shift};
    if (!simple) return c;
    c.start = ek_wrap_add(c.start, bias), c.bias = 0;
    c.round = ((int32_t)1 << (high - 1)) + result_zero * ((int32_t)1 << high), c.high = high;
    return c;
}

/* The sum of (x - zero) · w, with the bias. */
EK_INLINE int32_t ek_total(const ek_channel *c, int32_t sum) { return ek_saturated_add(sum, c->bias); }

/* A result before it is cut to int8, where the product's high word is enough. */
EK_INLINE int32_t ek_short_result(int32_t m, int32_t round, int32_t high, int32_t sum) { return ek_add_product_high(sum, m, round) >> high; }

/* … in general; cut to what is beyond int8 all the same. */
static __attribute__((noinline, unused)) int32_t ek_any_result(const ek_channel *c, int32_t sum, int32_t zero) {
    if (c->high) return ek_short_result(c->m, c->round, c->high, sum);
    int64_t wide = ek_rescale(ek_total(c, sum), (ek_factor){c->m, c->shift}) + zero;
    return wide < -256 ? -256 : wide > 255 ? 255 : (int32_t)wide;
}

#endif
