/* A dense int8 convolution: rows of x, or patches of it, times WIDE columns of the weight, which lie in scratch memory as int16: as
 * many of them as fit into PACKED bytes, or, where one column is longer, a part of its depth after the other. */
#include "q_conv2d.h"

enum { WIDE = 4, PACKED = 4096, ONES = 0x00010001 };

/* Four depths of WIDE columns: 0 and 2 of each column, then 1 and 3. */
typedef struct {
    uint32_t even[WIDE], odd[WIDE];
} quad;

enum { DEEP = PACKED / sizeof(quad) }; /* fours of depths in a part */

typedef struct {
    size_t quads, part; /* fours of depths of a sum; of a part */
    size_t columns;     /* packed at a time, WIDE where there are parts */
    size_t packed, patch, sums; /* bytes */
} plan;

/* Whether the rows of the product lie in x as they are. */
static int is_plain(const ek_q_conv *c) {
    const int32_t *padding = c->a->padding;
    return c->kernel_h == 1 && c->kernel_w == 1 && c->a->stride[0] == 1 && c->a->stride[1] == 1 && c->depth % 4 == 0 &&
           !(padding[0] | padding[1] | padding[2] | padding[3]);
}

static plan plan_of(const ek_q_conv *c) {
    plan p = {.quads = (c->depth + 3) / 4, .columns = WIDE};
    size_t all = ((size_t)c->outputs + WIDE - 1) / WIDE * WIDE;
    int parts = p.quads > DEEP && c->rows < p.quads; /* sums of all rows are less than what they save */
    p.part = parts ? DEEP : p.quads;
    if (!parts && p.quads < DEEP) p.columns = DEEP / p.quads * WIDE < all ? DEEP / p.quads * WIDE : all;
    p.packed = p.columns / WIDE * p.part * sizeof(quad);
    p.patch = is_plain(c) ? 0 : p.quads * 4;
    p.sums = parts ? c->rows * WIDE * sizeof(int32_t) : 0;
    return p;
}

size_t EK_NAME(ek_q_dense_scratch)(const ek_q_conv *c) {
    plan p = plan_of(c);
    return p.packed + p.sums + p.columns * sizeof(ek_channel) + p.patch;
}

/* The weights of a depth, of all outputs. */
static const int8_t *weights_at(const ek_q_conv *c, size_t k) {
    size_t outputs = (size_t)c->outputs, channels = (size_t)c->channels;
    if (!c->rest) return c->w + k * outputs;
    size_t tap = k / channels, channel = k % channels;
    if (channel < c->own) return c->w + (tap * c->own + channel) * outputs;
    return c->rest + (tap * (channels - c->own) + channel - c->own) * outputs;
}

/* Columns o … o + 3 of `depths` depths from k on, as many of each as there are. */
static void pack_edge(const ek_q_conv *c, size_t k, size_t depths, size_t o, quad *to) {
    for (size_t j = 0; j < WIDE; j++) {
        uint32_t w[4] = {0};
        for (size_t i = 0; i < depths && o + j < (size_t)c->outputs; i++) w[i] = (uint32_t)weights_at(c, k + i)[o + j];
        to->even[j] = ek_lows(w[0], w[2]), to->odd[j] = ek_lows(w[1], w[3]);
    }
}

static void pack_quad(const ek_q_conv *c, size_t k, size_t o, quad *to) {
    uint32_t a = ek_four(weights_at(c, k) + o), b = ek_four(weights_at(c, k + 1) + o), d = ek_four(weights_at(c, k + 2) + o),
             e = ek_four(weights_at(c, k + 3) + o);
    uint32_t a_even = ek_even(a), d_even = ek_even(d), a_odd = ek_odd(a), d_odd = ek_odd(d);
    to->even[0] = ek_lows(a_even, d_even), to->even[1] = ek_lows(a_odd, d_odd);
    to->even[2] = ek_highs(a_even, d_even), to->even[3] = ek_highs(a_odd, d_odd);
    uint32_t b_even = ek_even(b), e_even = ek_even(e), b_odd = ek_odd(b), e_odd = ek_odd(e);
    to->odd[0] = ek_lows(b_even, e_even), to->odd[1] = ek_lows(b_odd, e_odd);
    to->odd[2] = ek_highs(b_even, e_even), to->odd[3] = ek_highs(b_odd, e_odd);
}

/* `quads` fours of depths from `first` on of columns o …; the sums of the weights are added to. */
static void pack(const ek_q_conv *c, size_t first, size_t quads, size_t o, quad *to, int32_t weights[WIDE]) {
    for (size_t q = 0; q < quads; q++, to++) {
        size_t k = 4 * (first + q), depths = c->depth - k < 4 ? c->depth - k : 4;
        if (depths == 4 && o + WIDE <= (size_t)c->outputs) pack_quad(c, k, o, to);
        else pack_edge(c, k, depths, o, to);
        for (size_t j = 0; j < WIDE; j++) weights[j] = ek_both(to->odd[j], ONES, ek_both(to->even[j], ONES, weights[j]));
    }
}

/* What the window of one result sees. */
static void gather(const ek_q_conv *c, size_t row, int8_t *to, size_t bytes) {
    size_t pixels = (size_t)c->out_h * (size_t)c->out_w, place = row % pixels, channels = (size_t)c->channels;
    const int8_t *image = c->x + row / pixels * (size_t)c->height * (size_t)c->width * channels;
    int h0 = (int)(place / (size_t)c->out_w) * c->a->stride[0] - c->a->padding[0];
    int w0 = (int)(place % (size_t)c->out_w) * c->a->stride[1] - c->a->padding[2];
    for (size_t i = c->depth; i < bytes; i++) to[i] = 0;
    for (int i = 0; i < c->kernel_h; i++) {
        int h = h0 + i * c->a->dilation[0];
        for (int j = 0; j < c->kernel_w; j++, to += channels) {
            int w = w0 + j * c->a->dilation[1];
            int inside = h >= 0 && h < c->height && w >= 0 && w < c->width;
            const int8_t *from = image + ((ptrdiff_t)h * c->width + w) * (ptrdiff_t)channels;
            for (size_t k = 0; k < channels; k++) to[k] = inside ? from[k] : (int8_t)c->from.zero;
        }
    }
}

static const int8_t *row_of(const ek_q_conv *c, const plan *p, size_t row, int8_t *patch) {
    if (!p->patch) return c->x + row * c->depth;
    gather(c, row, patch, p->patch);
    return patch;
}

/* A row of x times WIDE columns. */
EK_INLINE void add_products(const int8_t *x, const quad *w, size_t quads, int32_t sum[WIDE]) {
    int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    _Pragma("clang loop unroll_count(2)")
    for (; quads; quads--, w++, x += 4) {
        uint32_t four = ek_four(x), even = ek_even(four), odd = ek_odd(four);
        s0 = ek_both(even, w->even[0], s0), s1 = ek_both(even, w->even[1], s1);
        s2 = ek_both(even, w->even[2], s2), s3 = ek_both(even, w->even[3], s3);
        s0 = ek_both(odd, w->odd[0], s0), s1 = ek_both(odd, w->odd[1], s1);
        s2 = ek_both(odd, w->odd[2], s2), s3 = ek_both(odd, w->odd[3], s3);
    }
    sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}

static __attribute__((noinline)) void multiply(const int8_t *x, const quad *w, size_t quads, int32_t sum[WIDE]) {
    add_products(x, w, quads, sum);
}

/* A row of x times WIDE columns, as int8 in a word; *bits: which of them are whole. The loop that everything else serves. */
static __attribute__((noinline)) uint32_t finished(const int8_t *x, const quad *w, size_t quads, const ek_channel *ch, int32_t zero,
                                                   uint32_t *bits) {
    int32_t s[WIDE] = {0};
    add_products(x, w, quads, s);
    uint32_t y = 0, all = 0, bit;
    EK_UNROLL
    for (int j = 0; j < WIDE; j++) {
        y |= ((uint32_t)ek_result(ch + j, s[j], zero, &bit) & 0xFF) << 8 * j;
        all |= bit << j;
    }
    *bits = all;
    return y;
}

/* WIDE bits of a mask, of whose byte the lower ones were there before. */
EK_INLINE void put_bits(uint8_t *byte, size_t at, uint32_t bits) { *byte = (uint8_t)(at ? *byte | bits << 4 : bits); }

/* Columns o … (n of WIDE) of a pixel; o is a multiple of WIDE, and the columns before them were there before. */
static void put(const ek_q_conv *c, const ek_channel *ch, const int32_t *sum, size_t pixel, size_t o, size_t n) {
    int8_t *y = (int8_t *)c->y + pixel * (size_t)c->outputs + o;
    uint32_t bits = 0, bit;
    for (size_t j = 0; j < n; j++) {
        if (c->a->real) {
            ek_put_real(c, ch + j, sum[j], pixel, o + j);
            continue;
        }
        y[j] = (int8_t)ek_result(ch + j, sum[j], c->to.zero, &bit);
        bits |= bit << j;
    }
    if (!c->mask || c->a->real) return;
    put_bits(c->mask + pixel * c->mask_bytes + o / 8, o % 8, bits);
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Columns o … (n of them) that are packed as a whole. */
static void run_columns(const ek_q_conv *c, const plan *p, size_t o, size_t n, const quad *packed, const ek_channel *ch, int8_t *patch) {
    size_t whole = c->a->real ? 0 : n / WIDE * WIDE;
    for (size_t row = 0; row < c->rows; row++) {
        const int8_t *x = row_of(c, p, row, patch);
        int8_t *y = (int8_t *)c->y + row * (size_t)c->outputs + o;
        uint8_t *mask = c->mask ? c->mask + row * c->mask_bytes : NULL;
        const quad *w = packed;
        size_t j = 0;
        for (; j < whole; j += WIDE, w += p->quads) {
            uint32_t bits;
            *(ek_anywhere *)(y + j) = finished(x, w, p->quads, ch + j, c->to.zero, &bits);
            if (mask) put_bits(mask + (o + j) / 8, (o + j) % 8, bits);
        }
        for (; j < n; j += WIDE, w += p->quads) {
            int32_t sum[WIDE] = {0};
            multiply(x, w, p->quads, sum);
            put(c, ch + j, sum, row, o + j, smaller(WIDE, n - j));
        }
    }
}

/* Columns o … (n ≤ WIDE) in parts of their depth. */
static void run_parts(const ek_q_conv *c, const plan *p, size_t o, size_t n, quad *packed, ek_channel *ch, int8_t *patch,
                      int32_t (*sums)[WIDE]) {
    int32_t weights[WIDE] = {0};
    for (size_t i = 0; i < c->rows; i++)
        for (size_t j = 0; j < WIDE; j++) sums[i][j] = 0;
    for (size_t q = 0; q < p->quads; q += p->part) {
        size_t quads = smaller(p->part, p->quads - q);
        pack(c, q, quads, o, packed, weights);
        for (size_t row = 0; row < c->rows; row++) multiply(row_of(c, p, row, patch) + 4 * q, packed, quads, sums[row]);
    }
    for (size_t j = 0; j < n; j++) ch[j] = ek_channel_at(c, o + j, weights[j]);
    for (size_t row = 0; row < c->rows; row++) put(c, ch, sums[row], row, o, n);
}

void EK_NAME(ek_q_dense)(const ek_q_conv *c, void *scratch) {
    plan p = plan_of(c);
    size_t outputs = (size_t)c->outputs;
    quad *packed = scratch;
    int32_t(*sums)[WIDE] = (int32_t(*)[WIDE])(void *)((char *)scratch + p.packed);
    ek_channel *channels = (ek_channel *)(void *)((char *)sums + p.sums);
    int8_t *patch = (int8_t *)(channels + p.columns);
    for (size_t o = 0; o < outputs; o += p.columns) {
        size_t n = smaller(p.columns, outputs - o);
        if (p.sums) {
            run_parts(c, &p, o, n, packed, channels, patch, sums);
            continue;
        }
        for (size_t j = 0; j < n; j += WIDE) {
            int32_t weights[WIDE] = {0};
            pack(c, 0, p.quads, o + j, packed + j / WIDE * p.quads, weights);
            for (size_t i = j; i < j + WIDE && i < n; i++) channels[i] = ek_channel_at(c, o + i, weights[i - j]);
        }
        run_columns(c, &p, o, n, packed, channels, patch);
    }
}
