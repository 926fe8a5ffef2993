/* What convolution kernels share: the geometry of an op, and the taps that reach one phase of an input gradient. */
#ifndef EK_CONV_H
#define EK_CONV_H

#include "gemm.h"

typedef struct {
    /* x: images × height × width × channels; y: images × out_h × out_w × outputs */
    int images, height, width, out_h, out_w;
    int channels, outputs, groups;
    int kernel_h, kernel_w;
    int stride_h, stride_w, top, left, dilation_h, dilation_w;
    int32_t algorithm; /* as the Program has it */
} ek_conv;

/* Along one axis, with stride s, the pixels ≡ phase (mod s) of x's gradient see the taps first, first + step, …
 * (count of them) and for pixel phase + s t, tap i is dy's pixel t + offset + i next. */
typedef struct {
    int first, step, count, offset, next;
} ek_phase;

EK_INLINE int ek_common_divisor(int a, int b) {
    while (b) {
        int rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* A verified Program may have any stride and dilation, so nothing here counts up to them. */
EK_INLINE ek_phase ek_phase_of(int phase, int kernel, int stride, int before, int dilation) {
    int common = ek_common_divisor(stride, dilation);
    ek_phase p = {.first = 0, .step = stride / common, .next = -(dilation / common)};
    int end = p.step < kernel ? p.step : kernel;
    while (p.first < end && (phase + before - p.first * dilation) % stride) p.first++;
    p.count = p.first < end ? (kernel - p.first + p.step - 1) / p.step : 0;
    p.offset = p.count ? (phase + before - p.first * dilation) / stride : 0;
    return p;
}

EK_INLINE int ek_is_depthwise(const ek_conv *c) {
    return c->groups == c->channels && c->groups == c->outputs && c->groups > 1;
}

/* The same taps from the last to the first; dy's pixel goes up from tap to tap then. */
EK_INLINE ek_phase ek_phase_backwards(ek_phase p) {
    int last = p.count > 0 ? p.count - 1 : 0;
    return (ek_phase){p.first + last * p.step, -p.step, p.count, p.offset + last * p.next, -p.next};
}

/* Whether a depthwise input gradient may write over dy; what may not gets a copy of dy. */
#if defined(EK_M7)
enum { EK_DEPTHWISE_OVER_DY = 1 };
#else
enum { EK_DEPTHWISE_OVER_DY = 0 };
#endif

/* Depthwise: one filter a channel (w[kernel_h, kernel_w, 1, channels]), vectorised over channels. */
size_t EK_NAME(ek_depthwise_scratch)(const ek_conv *c);
size_t EK_NAME(ek_depthwise_input_grad_scratch)(const ek_conv *c);
void EK_NAME(ek_depthwise_forward)(const ek_conv *c, const float *x, ek_real w, const ek_epilogue *finish,
        ek_pool *pool, void *scratch);
void EK_NAME(ek_depthwise_input_grad)(const ek_conv *c, const float *dy, ek_real w, const ek_epilogue *finish,
        ek_pool *pool, void *scratch);
size_t EK_NAME(ek_depthwise_weight_grad_scratch)(const ek_conv *c, int threads);
void EK_NAME(ek_depthwise_weight_grad)(const ek_conv *c, ek_real x, const float *dy, float *dw, float *db,
        ek_pool *pool, void *scratch);

#endif
