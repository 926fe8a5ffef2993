/* A depthwise int8 convolution, a channel at a time: the channel is copied, with its padding, into scratch memory, where windows are
 * read in words; so it is also free to write over its input. */
#include "q_conv2d.h"

/* A channel with its padding. Rows of taps are read in fours, and for two results at a time: it is a little wider. */
typedef struct {
    size_t rows, width, bytes;
} plane;

/* Its bytes are more than there can be where a verified Program's padding makes them so. */
static plane plane_of(const ek_q_conv *c) {
    uint64_t rows = (uint64_t)(c->out_h - 1) * (uint64_t)c->a->stride[0] + (uint64_t)(c->kernel_h - 1) * (uint64_t)c->a->dilation[0] + 1;
    uint64_t reach = (uint64_t)(c->kernel_w - 1) * (uint64_t)c->a->dilation[1] + 4;
    uint64_t width = (uint64_t)c->out_w * (uint64_t)c->a->stride[1] + reach + 3, bytes;
    int fits = !__builtin_mul_overflow(rows, width, &bytes) && bytes < SIZE_MAX / 2;
    return (plane){(size_t)rows, (size_t)width, fits ? (size_t)bytes : SIZE_MAX / 2};
}

/* Windows with gaps are read tap by tap: a four for each. */
static int has_gaps(const ek_q_conv *c) { return c->a->dilation[1] > 1; }
static size_t fours_of(const ek_q_conv *c) { return has_gaps(c) ? (size_t)c->kernel_w : ((size_t)c->kernel_w + 3) / 4; }

static size_t filter_bytes(const ek_q_conv *c) { return (size_t)c->kernel_h * fours_of(c) * 2 * sizeof(uint32_t); }
static size_t sums_bytes(const ek_q_conv *c) { return ((size_t)c->out_w + 1) * sizeof(int32_t); }

size_t EK_NAME(ek_q_depthwise_scratch)(const ek_q_conv *c) { return filter_bytes(c) + sums_bytes(c) + plane_of(c).bytes; }

static void fill(int8_t *to, size_t n, int32_t value) {
    _Pragma("clang loop unroll(disable)")
    for (int8_t *end = to + n; to < end;) *to++ = (int8_t)value;
}

static void copy_column(const int8_t *from, size_t step, size_t n, int8_t *to) {
    _Pragma("clang loop unroll_count(4)")
    for (; n; n--, from += step) *to++ = *from;
}

/* Channel ch of an image, zero points around it. */
static void copy_plane(const ek_q_conv *c, const int8_t *image, size_t ch, plane p, int8_t *to) {
    size_t top = (size_t)c->a->padding[0], left = (size_t)c->a->padding[2], channels = (size_t)c->channels;
    size_t n = p.width - left < (size_t)c->width ? p.width - left : (size_t)c->width;
    for (size_t row = 0; row < p.rows; row++, to += p.width) {
        size_t h = row - top, inside = row >= top && h < (size_t)c->height ? n : 0;
        const int8_t *from = image + (inside ? h * (size_t)c->width * channels : 0) + ch;
        fill(to, left, c->from.zero);
        copy_column(from, channels, inside, to + left);
        fill(to + left + inside, p.width - left - inside, c->from.zero);
    }
}

/* The channel's filter: taps 0 and 2 of each four, then 1 and 3. */
static ek_channel read_filter(const ek_q_conv *c, size_t ch, uint32_t *to) {
    int32_t sum = 0;
    for (int i = 0; i < c->kernel_h; i++)
        for (size_t q = 0; q < fours_of(c); q++, to += 2) {
            int32_t w[4] = {0};
            for (size_t k = 0; k < (has_gaps(c) ? 1 : 4); k++) {
                size_t j = has_gaps(c) ? q : 4 * q + k;
                if (j < (size_t)c->kernel_w) w[k] = c->w[((size_t)i * (size_t)c->kernel_w + j) * (size_t)c->channels + ch];
                sum += w[k];
            }
            to[0] = ek_lows((uint32_t)w[0], (uint32_t)w[2]), to[1] = ek_lows((uint32_t)w[1], (uint32_t)w[3]);
        }
    return ek_channel_at(c, ch, sum);
}

/* A row of results, 3 × 3 taps, stride 1: two neighbours at a time from one word a row. May write one more than n. */
static __attribute__((noinline)) void row_of_three(const int8_t *x, size_t width, const uint32_t *f, size_t n, int32_t *sums) {
    uint32_t f0 = f[0], f1 = f[2], f2 = f[4], middle = ek_lows(f[1], f[3]), last = f[5];
    _Pragma("clang loop unroll(disable)")
    for (int32_t *end = sums + n; sums < end; x += 2, sums += 2) {
        uint32_t four = ek_four(x), even = ek_even(four), odd = ek_odd(four);
        int32_t s0 = ek_low(odd, middle, ek_both(even, f0, 0)), s1 = ek_high(even, middle, ek_both(odd, f0, 0));
        four = ek_four(x + width), even = ek_even(four), odd = ek_odd(four);
        s0 = ek_low_high(odd, middle, ek_both(even, f1, s0)), s1 = ek_high_high(even, middle, ek_both(odd, f1, s1));
        four = ek_four(x + 2 * width), even = ek_even(four), odd = ek_odd(four);
        sums[0] = ek_low(odd, last, ek_both(even, f2, s0)), sums[1] = ek_high(even, last, ek_both(odd, f2, s1));
    }
}

/* Fours of a window: bytes from one to the next, in a row and from row to row of taps. */
typedef struct {
    size_t rows, fours, next, down;
} window;

/* Two results whose windows are `step` apart. */
static __attribute__((noinline)) void two_of_any(const int8_t *x, size_t step, const window *v, const uint32_t *f, int32_t *sums) {
    int32_t s0 = 0, s1 = 0;
    for (size_t i = 0; i < v->rows; i++, x += v->down) {
        const int8_t *at = x;
        _Pragma("clang loop unroll(disable)")
        for (size_t q = v->fours; q; q--, at += v->next, f += 2) {
            uint32_t a = ek_four(at), b = ek_four(at + step);
            s0 = ek_both(ek_even(a), f[0], s0), s1 = ek_both(ek_even(b), f[0], s1);
            s0 = ek_both(ek_odd(a), f[1], s0), s1 = ek_both(ek_odd(b), f[1], s1);
        }
    }
    sums[0] = s0, sums[1] = s1;
}

static void sum_row(const ek_q_conv *c, const int8_t *x, size_t width, const uint32_t *filter, int32_t *sums) {
    size_t step = (size_t)c->a->stride[1], n = (size_t)c->out_w;
    if (c->kernel_h == 3 && c->kernel_w == 3 && step == 1 && c->a->dilation[0] == 1 && !has_gaps(c)) {
        row_of_three(x, width, filter, n, sums);
        return;
    }
    window v = {(size_t)c->kernel_h, fours_of(c), has_gaps(c) ? (size_t)c->a->dilation[1] : 4, (size_t)c->a->dilation[0] * width};
    for (size_t w = 0; w < n; w += 2, x += 2 * step) two_of_any(x, step, &v, filter, sums + w);
}

/* n neighbours of channel o. */
static void put_row(const ek_q_conv *c, const ek_channel *given, const int32_t *sums, size_t n, size_t pixel, size_t o) {
    const ek_channel ch = *given; /* a copy that no store can alias */
    size_t outputs = (size_t)c->outputs, mask_bytes = c->mask_bytes;
    int8_t *y = (int8_t *)c->y + pixel * outputs + o;
    uint8_t *mask = c->mask ? c->mask + pixel * mask_bytes + o / 8 : NULL;
    uint32_t at = o % 8, kept = (1u << at) - 1, bit;
    int32_t zero = c->to.zero;
    if (c->a->real) {
        for (size_t i = 0; i < n; i++) ek_put_real(c, &ch, sums[i], pixel + i, o);
        return;
    }
    for (const int32_t *end = sums + n; sums < end; y += outputs) {
        *y = (int8_t)ek_result(&ch, *sums++, zero, &bit);
        if (!mask) continue;
        *mask = (uint8_t)((*mask & kept) | bit << at);
        mask += mask_bytes;
    }
}

void EK_NAME(ek_q_depthwise)(const ek_q_conv *c, void *scratch) {
    plane p = plane_of(c);
    uint32_t *filter = scratch;
    int32_t *sums = (int32_t *)(void *)((char *)scratch + filter_bytes(c));
    int8_t *copy = (int8_t *)sums + sums_bytes(c);
    size_t image = (size_t)c->height * (size_t)c->width * (size_t)c->channels, n = (size_t)c->out_w;
    for (size_t o = 0; o < (size_t)c->channels; o++) {
        ek_channel ch = read_filter(c, o, filter);
        for (size_t i = 0, pixel = 0; i < (size_t)c->images; i++) {
            copy_plane(c, c->x + i * image, o, p, copy);
            for (size_t h = 0; h < (size_t)c->out_h; h++, pixel += n) {
                sum_row(c, copy + h * (size_t)c->a->stride[0] * p.width, p.width, filter, sums);
                put_row(c, &ch, sums, n, pixel, o);
            }
        }
    }
}
