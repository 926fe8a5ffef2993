/* What follows the sums of x · w of one output channel: what x's zero point adds to them, the bias, the rescaling. */
#ifndef EK_Q_CHANNEL_H
#define EK_Q_CHANNEL_H

#include "dsp.h"
#include "quant.h"

typedef struct {
    int32_t offset; /* of a sum, which wraps around: - zero · the sum of the weights */
    int32_t bias;
    ek_factor factor;
    int32_t half, high; /* half a unit of the result in the product's high word, and how far that is shifted; half is 0 where the low
                         * word counts too */
} ek_channel;

EK_INLINE ek_channel ek_channel_of(ek_factor factor, int32_t zero, int32_t weights, int32_t bias) {
    int high = factor.shift > 32 ? factor.shift - 32 : 0;
    return (ek_channel){-weights * zero, bias, factor, high ? (int32_t)1 << (high - 1) : 0, high};
}

/* The sum of (x - zero) · w, with the bias. */
EK_INLINE int32_t ek_total(const ek_channel *c, int32_t sum) { return ek_saturated_add(ek_wrap_add(sum, c->offset), c->bias); }

/* The rescaled total where the product's low word counts, cut to what is beyond int8 all the same. */
static __attribute__((noinline, unused)) int32_t ek_rescale_wide(const ek_channel *c, int32_t total, int32_t zero) {
    int64_t wide = ek_rescale(total, c->factor) + zero;
    return wide < -256 ? -256 : wide > 255 ? 255 : (int32_t)wide;
}

/* The result as int8; *bit: whether it is whole. */
EK_INLINE int32_t ek_result(const ek_channel *c, int32_t sum, int32_t zero, uint32_t *bit) {
    int32_t total = ek_total(c, sum), q = ((ek_product_high(total, c->factor.m) + c->half) >> c->high) + zero;
    if (__builtin_expect(!c->half, 0)) q = ek_rescale_wide(c, total, zero);
    int32_t y = ek_int8(q);
    *bit = y == q;
    return y;
}

#endif
