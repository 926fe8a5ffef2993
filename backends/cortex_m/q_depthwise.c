/* A depthwise int8 convolution, LANES channels at a time: their rows are copied, with the padding around them, into scratch memory as
 * int16, each channel by itself, so that two neighbours are one word. There are as many rows as a filter spans, again and again. So
 * it is also free to write over its input: a row of it has been copied by then. */
#include "q_conv2d.h"

enum { LANES = 4, RUN = 4 }; /* channels; results next to each other */

/* Two neighbours in a row. */
typedef uint32_t two __attribute__((may_alias));

/* A row of taps is a row of pairs of them, with zeros in its gaps: as they meet a window that begins with the first of two neighbours,
 * and one that begins with the second. */
typedef struct {
    uint32_t first, second;
} pair;

typedef struct {
    size_t span;  /* rows */
    size_t width; /* of a row of one channel */
    size_t pairs; /* in a row of taps */
    size_t filter, band, bytes;
} plan;

/* Its bytes are more than there can be where a verified Program's padding makes them so. */
static plan plan_of(const ek_q_conv *c) {
    uint64_t span = (uint64_t)(c->kernel_h - 1) * (uint64_t)c->a->dilation[0] + 1, stride = (uint64_t)c->a->stride[1];
    uint64_t pairs = ((uint64_t)(c->kernel_w - 1) * (uint64_t)c->a->dilation[1] + 3) / 2, runs = ((uint64_t)c->out_w + RUN - 1) / RUN;
    uint64_t width = ((runs - 1) * RUN * stride + 1) / 2 * 2 + 2 * (pairs + (stride > 2 ? (RUN - 1) * stride : RUN - 1)), band, filter, bytes;
    int fits = !__builtin_mul_overflow(span * LANES * sizeof(int16_t), width, &band) &&
               !__builtin_mul_overflow((uint64_t)c->kernel_h * LANES * sizeof(pair), pairs, &filter) &&
               !__builtin_add_overflow(band + (uint64_t)c->kernel_h * sizeof(int16_t *), filter, &bytes) && bytes < SIZE_MAX / 2;
    if (!fits) return (plan){.bytes = SIZE_MAX / 2};
    return (plan){(size_t)span, (size_t)width, (size_t)pairs, (size_t)filter, (size_t)band, (size_t)bytes};
}

size_t EK_NAME(ek_q_depthwise_scratch)(const ek_q_conv *c) { return plan_of(c).bytes; }

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* The filter of channel ch, `pairs` a row; the channel. */
static ek_channel read_filter(const ek_q_conv *c, size_t ch, size_t pairs, pair *to) {
    int32_t sum = 0;
    memset(to, 0, (size_t)c->kernel_h * pairs * sizeof *to);
    const int8_t *w = c->w + ch;
    for (int i = 0; i < c->kernel_h; i++, to += pairs)
        for (int j = 0; j < c->kernel_w; j++, w += c->channels) {
            size_t at = (size_t)j * (size_t)c->a->dilation[1];
            uint32_t tap = (uint16_t)*w;
            sum += *w;
            if (at % 2) to[at / 2].first |= tap << 16, to[at / 2 + 1].second |= tap;
            else to[at / 2].first |= tap, to[at / 2].second |= tap << 16;
        }
    return ek_channel_at(c, ch, sum);
}

static void fill(int16_t *to, size_t n, int32_t value) {
    for (size_t i = 0; i < n; i++) to[i] = (int16_t)value;
}

/* n pixels of LANES channels, to rows that are `width` apart. */
static __attribute__((noinline)) void copy_lanes(const int8_t *from, size_t step, size_t n, int16_t *to, size_t width) {
    int16_t *b = to + width, *c = b + width, *d = c + width;
    for (size_t i = 0; i + 2 <= n; i += 2, from += 2 * step) {
        uint32_t p = ek_four(from), q = ek_four(from + step);
        uint32_t p_even = ek_even(p), q_even = ek_even(q), p_odd = ek_odd(p), q_odd = ek_odd(q);
        *(ek_anywhere *)(to + i) = ek_lows(p_even, q_even), *(ek_anywhere *)(b + i) = ek_lows(p_odd, q_odd);
        *(ek_anywhere *)(c + i) = ek_highs(p_even, q_even), *(ek_anywhere *)(d + i) = ek_highs(p_odd, q_odd);
    }
    for (size_t k = 0; n % 2 && k < LANES; k++) to[k * width + n - 1] = from[k];
}

/* Row `row` of the padded image, of `lanes` channels from ch on. */
static void copy_row(const ek_q_conv *c, const plan *p, const int8_t *image, size_t row, size_t ch, size_t lanes, int16_t *to) {
    size_t top = (size_t)c->a->padding[0], left = (size_t)c->a->padding[2], channels = (size_t)c->channels;
    size_t n = left < p->width ? smaller(p->width - left, (size_t)c->width) : 0;
    int inside = row >= top && row - top < (size_t)c->height;
    const int8_t *from = image + (inside ? (row - top) * (size_t)c->width * channels : 0) + ch;
    to += left;
    if (inside && lanes == LANES) {
        copy_lanes(from, channels, n, to, p->width);
        return;
    }
    for (size_t k = 0; k < lanes; k++, to += p->width)
        for (size_t i = 0; i < n; i++) to[i] = inside ? from[i * channels + k] : (int16_t)c->from.zero;
}

/* A row of results of one channel. */
typedef struct {
    const ek_q_conv *c;
    const int16_t *const *taps; /* a row of pixels for each row of taps */
    size_t lane, stride, pairs; /* the channel's place in it */
    const pair *filter;
    ek_channel channel;
    size_t o, pixel; /* of the first result */
} row;

/* The bit `at` of a mask's byte, of whose bits the lower ones were there before. */
EK_INLINE void put_bit(uint8_t *byte, size_t at, uint32_t bit) { *byte = (uint8_t)((*byte & ((1u << at) - 1)) | bit << at); }

/* n results from the w-th on. */
static __attribute__((noinline)) void put(const row *r, const int32_t *sum, size_t w, size_t n) {
    const ek_q_conv *c = r->c;
    size_t outputs = (size_t)c->outputs, pixel = r->pixel + w;
    for (size_t i = 0; i < n; i++, pixel++) {
        if (c->a->real) {
            ek_put_real(c, &r->channel, sum[i], pixel, r->o);
            continue;
        }
        int32_t q = ek_any_result(&r->channel, sum[i], c->to.zero), y = ek_int8(q);
        ((int8_t *)c->y)[pixel * outputs + r->o] = (int8_t)y;
        if (c->mask) put_bit(c->mask + pixel * c->mask_bytes + r->o / 8, r->o % 8, y == q);
    }
}

/* RUN sums of windows that are 1 or 2 apart. */
EK_INLINE void sum_run(const row *r, const int16_t *const *end, size_t at, size_t stride, size_t pairs, int32_t s[RUN]) {
    const pair *f = r->filter;
    int32_t s0 = r->channel.start, s1 = s0, s2 = s0, s3 = s0;
    for (const int16_t *const *taps = r->taps; taps < end; taps++, f += pairs) {
        const two *x = (const two *)(const void *)(*taps + at);
        for (size_t i = 0; i < pairs; i++) {
            if (stride == 1) {
                s0 = ek_both(x[i], f[i].first, s0), s1 = ek_both(x[i], f[i].second, s1);
                s2 = ek_both(x[i + 1], f[i].first, s2), s3 = ek_both(x[i + 1], f[i].second, s3);
            } else {
                s0 = ek_both(x[i], f[i].first, s0), s1 = ek_both(x[i + 1], f[i].first, s1);
                s2 = ek_both(x[i + 2], f[i].first, s2), s3 = ek_both(x[i + 3], f[i].first, s3);
            }
        }
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3;
}

/* RUN results, cut to int8 and stored `next` bytes apart; their mask. */
EK_INLINE void put_run(int32_t q[RUN], int8_t *y, size_t next) {
    EK_UNROLL
    for (size_t i = 0; i < RUN; i++) y[i * next] = (int8_t)ek_int8(q[i]);
}

static __attribute__((noinline)) void put_mask(const int32_t q[RUN], uint8_t *mask, size_t next, size_t at) {
    EK_UNROLL
    for (size_t i = 0; i < RUN; i++, mask += next) put_bit(mask, at, ek_int8(q[i]) == q[i]);
}

EK_INLINE void run_row(const row *r, size_t stride, size_t pairs) {
    const ek_q_conv *c = r->c;
    const int16_t *const *end = r->taps + c->kernel_h;
    size_t outputs = (size_t)c->outputs, n = (size_t)c->out_w, at = r->lane;
    int32_t m = r->channel.m, round = r->channel.round, high = r->channel.high;
    int8_t *y = (int8_t *)c->y + r->pixel * outputs + r->o;
    uint8_t *mask = c->mask ? c->mask + r->pixel * c->mask_bytes + r->o / 8 : NULL;
    size_t whole = high && !c->a->real ? n / RUN * RUN : 0;
    int32_t s[RUN];
    for (size_t w = 0; w < whole; w += RUN, y += RUN * outputs, at += RUN * stride) {
        sum_run(r, end, at, stride, pairs, s);
        EK_UNROLL
        for (size_t i = 0; i < RUN; i++) s[i] = ek_short_result(m, round, high, s[i]);
        put_run(s, y, outputs);
        if (!mask) continue;
        put_mask(s, mask, c->mask_bytes, r->o % 8);
        mask += RUN * c->mask_bytes;
    }
    for (size_t w = whole; w < n; w += RUN, at += RUN * stride) {
        sum_run(r, end, at, stride, pairs, s);
        put(r, s, w, smaller(RUN, n - w));
    }
}

static __attribute__((noinline)) void row_1_2(const row *r) { run_row(r, 1, 2); }
static __attribute__((noinline)) void row_1_3(const row *r) { run_row(r, 1, 3); }
static __attribute__((noinline)) void row_1_4(const row *r) { run_row(r, 1, 4); }
static __attribute__((noinline)) void row_1_any(const row *r) { run_row(r, 1, r->pairs); }
static __attribute__((noinline)) void row_2_2(const row *r) { run_row(r, 2, 2); }
static __attribute__((noinline)) void row_2_3(const row *r) { run_row(r, 2, 3); }
static __attribute__((noinline)) void row_2_4(const row *r) { run_row(r, 2, 4); }
static __attribute__((noinline)) void row_2_any(const row *r) { run_row(r, 2, r->pairs); }

/* One result at a time. */
static __attribute__((noinline)) void row_any(const row *r) {
    for (size_t w = 0; w < (size_t)r->c->out_w; w++) {
        size_t at = w * r->stride;
        int32_t sum = r->channel.start;
        for (size_t i = 0; i < (size_t)r->c->kernel_h; i++) {
            const two *x = (const two *)(const void *)(r->taps[i] + r->lane + at / 2 * 2);
            const pair *f = r->filter + i * r->pairs;
            for (size_t j = 0; j < r->pairs; j++) sum = ek_both(x[j], at % 2 ? f[j].second : f[j].first, sum);
        }
        put(r, &sum, w, 1);
    }
}

typedef void run(const row *r);

/* By the stride and the pairs in a row of taps. */
static run *run_of(size_t stride, size_t pairs) {
    static run *const by_pairs[2][3] = {{row_1_2, row_1_3, row_1_4}, {row_2_2, row_2_3, row_2_4}};
    if (stride > 2) return row_any;
    if (pairs >= 2 && pairs <= 4) return by_pairs[stride - 1][pairs - 2];
    return stride == 1 ? row_1_any : row_2_any;
}

typedef struct {
    pair *filter; /* of LANES channels */
    const int16_t **taps;
    int16_t *band; /* a row after the other of LANES channels */
    row rows[LANES];
    run *run;
} work;

/* What the next row of results sees: rows of the padded image from `row` on, of which `copied` lie in the band. */
static size_t next_rows(const ek_q_conv *c, const plan *p, const work *k, const int8_t *image, size_t row, size_t copied, size_t o,
                        size_t lanes) {
    size_t bytes = LANES * p->width;
    if (copied < row) copied = row;
    for (; copied < row + p->span; copied++) copy_row(c, p, image, copied, o, lanes, k->band + copied % p->span * bytes);
    for (size_t i = 0; i < (size_t)c->kernel_h; i++, row += (size_t)c->a->dilation[0]) k->taps[i] = k->band + row % p->span * bytes;
    return copied;
}

/* `lanes` channels from o on of one image, whose results begin at `pixel`. */
static void run_image(const ek_q_conv *c, const plan *p, work *k, const int8_t *image, size_t pixel, size_t o, size_t lanes) {
    for (size_t h = 0, copied = 0; h < (size_t)c->out_h; h++, pixel += (size_t)c->out_w) {
        copied = next_rows(c, p, k, image, h * (size_t)c->a->stride[0], copied, o, lanes);
        for (row *r = k->rows; r < k->rows + lanes; r++) r->pixel = pixel, k->run(r);
    }
}

/* The filter of channel o, and what its rows have in common. */
static row row_of(const ek_q_conv *c, const plan *p, const work *k, size_t lane, size_t o) {
    pair *filter = k->filter + lane * (size_t)c->kernel_h * p->pairs;
    row r = {c, k->taps, lane * p->width, (size_t)c->a->stride[1], p->pairs, filter, .o = o};
    r.channel = read_filter(c, o, p->pairs, filter);
    return r;
}

void EK_NAME(ek_q_depthwise)(const ek_q_conv *c, void *scratch) {
    plan p = plan_of(c);
    work k = {.taps = scratch};
    k.filter = (pair *)(void *)(k.taps + c->kernel_h), k.band = (int16_t *)(void *)((char *)k.filter + p.filter);
    k.run = run_of((size_t)c->a->stride[1], p.pairs);
    size_t image = (size_t)c->height * (size_t)c->width * (size_t)c->channels, pixels = (size_t)c->out_h * (size_t)c->out_w;
    fill(k.band, p.band / sizeof *k.band, c->from.zero);
    for (size_t o = 0; o < (size_t)c->channels; o += LANES) {
        size_t lanes = smaller(LANES, (size_t)c->channels - o);
        for (size_t i = 0; i < lanes; i++) k.rows[i] = row_of(c, &p, &k, i, o + i);
        for (size_t i = 0; i < (size_t)c->images; i++) run_image(c, &p, &k, c->x + i * image, i * pixels, o, lanes);
    }
}
