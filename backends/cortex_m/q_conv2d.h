/* An int8 convolution: what its dense and its depthwise form share. */
#ifndef EK_Q_CONV2D_H
#define EK_Q_CONV2D_H

#include "q_channel.h"
#include "q_factor.h"

typedef struct {
    const ek_q_conv2d_attrs *a;
    const int8_t *x, *w, *rest; /* w's input channels come first; those after them are in rest, where there are any */
    void *y;       /* int8, or float for a real result */
    uint8_t *mask; /* or NULL */
    const int32_t *bias;
    const float *scale;
    int images, height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w;
    size_t rows, mask_bytes; /* pixels of the result; bytes of the mask for each */
    size_t depth, own;       /* products in a sum; of a dense one: input channels of w */
    ek_quant from, to;
    ek_ratio ratio; /* of their scales */
} ek_q_conv;

size_t EK_NAME(ek_q_dense_scratch)(const ek_q_conv *c);
void EK_NAME(ek_q_dense)(const ek_q_conv *c, void *scratch);

size_t EK_NAME(ek_q_depthwise_scratch)(const ek_q_conv *c);
void EK_NAME(ek_q_depthwise)(const ek_q_conv *c, void *scratch);

/* Output channel o, whose weights' sum is known. */
EK_INLINE ek_channel ek_channel_at(const ek_q_conv *c, size_t o, int32_t weights) {
    ek_factor factor = c->a->real ? (ek_factor){0, 31} : ek_factor_of(&c->ratio, c->scale[o]);
    return ek_channel_of(factor, c->from.zero, c->to.zero, weights, c->bias ? c->bias[o] : 0, c->depth);
}

/* A real result. */
EK_INLINE void ek_put_real(const ek_q_conv *c, const ek_channel *ch, int32_t sum, size_t pixel, size_t o) {
    ((float *)c->y)[pixel * (size_t)c->outputs + o] = (float)((double)ek_total(ch, sum) * (c->from.scale * (double)c->scale[o]));
}

#endif
