/* Convolutions of int8: what is known of one, and what its weights become before it runs.
 *
 * The zero point of x leaves the inner loops: sum (x - zero) w = sum x w - zero sum w. What lies outside the image counts as the
 * zero point. The second term and the bias are where a sum begins (`start`), where int32 cannot overflow. */
#ifndef EK_Q_CONV2D_H
#define EK_Q_CONV2D_H

#include "q_rescale.h"

/* A dense product's instruction: EK_Q_DEPTHS products of x and w an int32 lane, added to its sum. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
typedef uint8_t ek_q_number; /* x + EK_Q_OFFSET */
typedef int8_t ek_q_weight;
enum { EK_Q_DEPTHS = 4, EK_Q_OFFSET = 128 };
#elif defined(__aarch64__)
typedef int8_t ek_q_number;
typedef int8_t ek_q_weight;
#if defined(__ARM_FEATURE_DOTPROD)
enum { EK_Q_DEPTHS = 4, EK_Q_OFFSET = 0 };
#else
enum { EK_Q_DEPTHS = 2, EK_Q_OFFSET = 0 };
#endif
#else
typedef int16_t ek_q_number;
typedef int16_t ek_q_weight;
enum { EK_Q_DEPTHS = 2, EK_Q_OFFSET = 0 };
#endif

#if defined(__x86_64__)
/* Lane by lane, the products of two int16 pairs, added. */
EK_INLINE ek_vi ek_q_pairs(ek_vi a, ek_vi b) {
    typedef int16_t words __attribute__((vector_size(EK_LANES * 4)));
#if defined(__AVX512F__)
    return (ek_vi)__builtin_ia32_pmaddwd512((words)a, (words)b);
#elif defined(__AVX2__)
    return (ek_vi)__builtin_ia32_pmaddwd256((words)a, (words)b);
#else
    return (ek_vi)__builtin_ia32_pmaddwd128((words)a, (words)b);
#endif
}
#endif

#if defined(__x86_64__) || defined(__ARM_FEATURE_DOTPROD)
EK_INLINE ek_vi ek_q_dot(ek_vi sum, ek_vi x, ek_vi w) {
#if defined(__AVX512VNNI__)
    return __builtin_ia32_vpdpbusd512(sum, x, w);
#elif defined(__AVXVNNI__)
    return __builtin_ia32_vpdpbusd256(sum, x, w);
#elif defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
#else
    return sum + ek_q_pairs(x, w);
#endif
}
#endif

/* Where a layer's tables and packed weights lie. */
typedef struct {
    const ek_q_factors *factors; /* by block of channels */
    const int32_t *start;        /* what a channel's sum begins with */
    const void *weights;
    int exact; /* whether the sums need the careful way: bias added in 64 bits, any factor */
} ek_q_layer;

typedef struct {
    const ek_call *call;
    const ek_q_conv2d_attrs *a;
    const int8_t *x, *w, *rest; /* the weight, and that of the input channels after its own; or NULL */
    int height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w;
    size_t own; /* input channels of w */
    ek_quant from, to;
    size_t rows, depth, blocks; /* results of a channel, products of a result, blocks of channels */
    ek_q_layer layer;
    void *work;
} ek_q_conv;

EK_INLINE int ek_q_is_depthwise(const ek_q_conv *c) { return c->a->groups > 1; }

/* The weights of a depth, of all outputs. */
EK_INLINE const int8_t *ek_q_weights_at(const ek_q_conv *c, size_t k) {
    size_t outputs = (size_t)c->outputs;
    if (ek_q_is_depthwise(c)) return c->w + k * outputs;
    size_t channels = (size_t)c->channels, tap = k / channels, channel = k % channels;
    if (channel < c->own) return c->w + (tap * c->own + channel) * outputs;
    return c->rest + (tap * (channels - c->own) + channel - c->own) * outputs;
}

/* Where the results of a block of channels go. A copy of its own spares kernels reading all of it anew after every store of bytes,
 * which may be anything to the compiler. */
typedef struct {
    const ek_q_conv *conv;
    const ek_q_factors *factors;
    int8_t *y;     /* the block's first channel at pixel 0 */
    uint8_t *mask; /* … or NULL */
    size_t block, n, row, mask_row; /* n channels; from pixel to pixel */
    int16_t zero;
    int plain; /* whether bytes alone are wanted, and vectors make them */
} ek_q_out;

EK_INLINE ek_q_out ek_q_out_of(const ek_q_conv *c, size_t block) {
    size_t outputs = (size_t)c->outputs, channel = block * EK_Q_BLOCK, left = outputs - channel;
    ek_q_out to = {.conv = c, .factors = &c->layer.factors[block], .block = block, .row = outputs, .mask_row = (outputs + 7) / 8};
    to.y = (int8_t *)c->call->out[EK_Q_CONV2D_Y] + channel;
    if (c->call->out[EK_Q_CONV2D_MASK]) to.mask = (uint8_t *)c->call->out[EK_Q_CONV2D_MASK] + channel / 8;
    to.n = left < EK_Q_BLOCK ? left : EK_Q_BLOCK, to.zero = (int16_t)c->to.zero;
    to.plain = !c->layer.exact && !c->a->real && !to.mask;
    return to;
}

/* The first n < EK_Q_BLOCK bytes of a block, without a call of memcpy; those that are not loaded are zero. */
EK_INLINE ek_q_bytes ek_q_load(const int8_t *from, size_t n) {
    int8_t bytes[EK_Q_BLOCK] = {0};
    ek_q_bytes x;
    size_t done = 0;
    EK_UNROLL
    for (size_t size = EK_Q_BLOCK / 2; size > 0; size /= 2)
        if (n & size) memcpy(bytes + done, from + done, size), done += size;
    memcpy(&x, bytes, sizeof bytes);
    return x;
}

EK_INLINE void ek_q_store(int8_t *to, ek_q_bytes y, size_t n) {
    int8_t bytes[EK_Q_BLOCK];
    memcpy(bytes, &y, sizeof bytes);
    size_t done = 0;
    EK_UNROLL
    for (size_t size = EK_Q_BLOCK / 2; size > 0; size /= 2)
        if (n & size) memcpy(to + done, bytes + done, size), done += size;
}

/* The sums of n pixels in a row, whatever the layer is: exact, with a mask, with less than a block of channels. */
void EK_NAME(ek_q_finish_any)(const ek_q_out *to, const ek_vi *sums, size_t pixel, size_t n);

enum { EK_Q_MOST = 12 };

/* Sums of `pixels` ≤ EK_Q_MOST in a row, a constant; the first n of them are wanted. All are computed before any is stored, so that
 * factors are read once. */
EK_INLINE void ek_q_finish(const ek_q_out *to, ek_vi (*sum)[EK_Q_VECTORS], size_t pixel, int pixels, size_t n) {
    if (!to->plain || n < (size_t)pixels) {
        ek_vi copy[EK_Q_MOST][EK_Q_VECTORS]; /* sums whose address is taken would not stay in registers */
        memcpy(copy, sum, (size_t)pixels * sizeof *copy);
        EK_NAME(ek_q_finish_any)(to, copy[0], pixel, n);
        return;
    }
    int8_t *at = to->y + pixel * to->row;
    ek_q_bytes y[EK_Q_MOST];
    EK_UNROLL
    for (int i = 0; i < pixels; i++) ek_q_rescale(to->factors, to->zero, sum[i], &y[i], 0);
    if (to->n == EK_Q_BLOCK)
        EK_UNROLL
        for (int i = 0; i < pixels; i++, at += to->row) memcpy(at, &y[i], EK_Q_BLOCK);
    else
        for (int i = 0; i < pixels; i++, at += to->row) ek_q_store(at, y[i], to->n);
}

EK_INLINE size_t ek_q_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Bytes of packed weights, and packing; working memory, and the work. */
size_t EK_NAME(ek_q_dense_bytes)(const ek_q_conv *c);
void EK_NAME(ek_q_dense_pack)(const ek_q_conv *c, void *to);
size_t EK_NAME(ek_q_dense_work)(const ek_q_conv *c, int threads);
void EK_NAME(ek_q_dense)(const ek_q_conv *c);
/* A depthwise product has no use for dot products of bytes: sets with them take the kernels of the set that they are added to. */
#if defined(__AVX512VNNI__)
#define EK_Q_DEPTHWISE(name) name##_avx512
#elif defined(__AVXVNNI__)
#define EK_Q_DEPTHWISE(name) name##_avx2
#elif defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)
#define EK_Q_DEPTHWISE(name) name##_neon
#else
#define EK_Q_DEPTHWISE(name) EK_NAME(name)
#endif
size_t EK_Q_DEPTHWISE(ek_q_depthwise_bytes)(const ek_q_conv *c);
void EK_Q_DEPTHWISE(ek_q_depthwise_pack)(const ek_q_conv *c, void *to);
size_t EK_Q_DEPTHWISE(ek_q_depthwise_work)(const ek_q_conv *c, int threads);
void EK_Q_DEPTHWISE(ek_q_depthwise)(const ek_q_conv *c);

#endif
