/* What follows the sums of x · w of one output channel: what x's zero point adds to them, the bias, the rescaling. */
#ifndef EK_Q_CHANNEL_H
#define EK_Q_CHANNEL_H

#include "dsp.h"
#include "quant.h"

typedef struct {
    int32_t offset; /* of a sum, which wraps around: - zero · the sum of the weights */
    int32_t bias;
    ek_factor factor;
    int32_t half; /* half a unit of the result in the product's high word, where that is all it takes; else 0 */
} ek_channel;

EK_INLINE ek_channel ek_channel_of(ek_factor factor, int32_t zero, int32_t weights, int32_t bias) {
    int high = factor.shift > 32;
    return (ek_channel){-weights * zero, bias, factor, high ? (int32_t)1 << (factor.shift - 33) : 0};
}

/* The sum of (x - zero) · w, with the bias. */
EK_INLINE int32_t ek_total(const ek_channel *c, int32_t sum) { return ek_saturated_add(ek_wrap_add(sum, c->offset), c->bias); }

/* The result as int8; *bit: whether it is whole. */
EK_INLINE int32_t ek_result(const ek_channel *c, int32_t sum, int32_t zero, uint32_t *bit) {
    int32_t total = ek_total(c, sum), q, y;
    if (c->half) {
        q = ((ek_product_high(total, c->factor.m) + c->half) >> (c->factor.shift - 32)) + zero;
    } else {
        int64_t wide = ek_rescale(total, c->factor) + zero;
        q = wide < -256 ? -256 : wide > 255 ? 255 : (int32_t)wide;
    }
    y = ek_int8(q);
    *bit = y == q;
    return y;
}

#endif
