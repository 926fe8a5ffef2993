/* A dense int8 convolution: rows of x, or patches of it, SIDE at a time, by WIDE columns of the weight at a time (q_tile.h). Both are
 * packed in scratch memory: as many columns as fit, or, where one is too long, a part of their depth after the other. */
#include "q_conv2d.h"
#include "q_tile.h"

enum { ROOM = 5376, ONES = 0x00010001 };

typedef struct {
    size_t depth, part; /* of a sum, of a part of it: multiples of DEEP */
    size_t tiles;       /* of columns packed at a time, one where there are parts */
    size_t rows, patch, columns, channels, sums; /* bytes */
} plan;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Whether the rows of the product lie in x as they are. */
static int is_plain(const ek_q_conv *c) {
    const int32_t *padding = c->a->padding;
    return c->kernel_h == 1 && c->kernel_w == 1 && c->a->stride[0] == 1 && c->a->stride[1] == 1 && c->depth % 4 == 0 &&
           !(padding[0] | padding[1] | padding[2] | padding[3]);
}

static size_t columns_bytes(size_t depth) { return sizeof(ek_q_columns) + depth * WIDE * sizeof(int16_t); }

static plan plan_of(const ek_q_conv *c) {
    size_t depth = (c->depth + DEEP - 1) / DEEP * DEEP, all = ((size_t)c->outputs + WIDE - 1) / WIDE;
    size_t one = columns_bytes(depth) + WIDE * sizeof(ek_channel), rows = depth * SIDE * sizeof(int16_t);
    plan p = {.depth = depth, .part = depth, .tiles = rows + one < ROOM ? smaller((ROOM - rows) / one, all) : 1};
    if (rows + one > ROOM && c->rows * 4 < depth) { /* sums of all rows are less than what they save */
        size_t parts = (rows + one + ROOM - 1) / ROOM;
        p.part = (depth / parts + DEEP) / DEEP * DEEP;
        p.sums = (c->rows + 1) * WIDE * sizeof(int32_t);
    }
    p.rows = p.part * SIDE * sizeof(int16_t);
    p.columns = columns_bytes(p.part), p.channels = p.tiles * WIDE * sizeof(ek_channel);
    p.patch = is_plain(c) ? 0 : depth;
    return p;
}

size_t EK_NAME(ek_q_dense_scratch)(const ek_q_conv *c) {
    plan p = plan_of(c);
    return p.rows + p.sums + p.channels + p.tiles * p.columns + p.patch;
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
static void pack_edge(const ek_q_conv *c, size_t k, size_t depths, size_t o, ek_quad *to) {
    for (size_t j = 0; j < WIDE; j++) {
        uint32_t w[4] = {0};
        for (size_t i = 0; i < depths && o + j < (size_t)c->outputs; i++) w[i] = (uint32_t)weights_at(c, k + i)[o + j];
        to->even[j] = ek_lows(w[0], w[2]), to->odd[j] = ek_lows(w[1], w[3]);
    }
}

static void pack_quad(const ek_q_conv *c, size_t k, size_t o, ek_quad *to) {
    uint32_t a = ek_four(weights_at(c, k) + o), b = ek_four(weights_at(c, k + 1) + o), d = ek_four(weights_at(c, k + 2) + o),
             e = ek_four(weights_at(c, k + 3) + o);
    uint32_t a_even = ek_even(a), d_even = ek_even(d), a_odd = ek_odd(a), d_odd = ek_odd(d);
    to->even[0] = ek_lows(a_even, d_even), to->even[1] = ek_lows(a_odd, d_odd);
    to->even[2] = ek_highs(a_even, d_even), to->even[3] = ek_highs(a_odd, d_odd);
    uint32_t b_even = ek_even(b), e_even = ek_even(e), b_odd = ek_odd(b), e_odd = ek_odd(e);
    to->odd[0] = ek_lows(b_even, e_even), to->odd[1] = ek_lows(b_odd, e_odd);
    to->odd[2] = ek_highs(b_even, e_even), to->odd[3] = ek_highs(b_odd, e_odd);
}

/* `depth` depths from `first` on of columns o …; the sums of the weights are added to. */
static void pack(const ek_q_conv *c, size_t first, size_t depth, size_t o, ek_quad *to, int32_t weights[WIDE]) {
    for (size_t k = first; k < first + depth; k += 4, to++) {
        size_t depths = k < c->depth ? smaller(4, c->depth - k) : 0;
        if (depths == 4 && o + WIDE <= (size_t)c->outputs) pack_quad(c, k, o, to);
        else pack_edge(c, k, depths, o, to);
        for (size_t j = 0; j < WIDE; j++) weights[j] = ek_both(to->odd[j], ONES, ek_both(to->even[j], ONES, weights[j]));
    }
}

static void copy(int8_t *to, const int8_t *from, size_t n) {
    _Pragma("clang loop unroll(disable)")
    for (; n >= 4; n -= 4, to += 4, from += 4) *(ek_anywhere *)to = ek_four(from);
    _Pragma("clang loop unroll(disable)")
    for (; n; n--) *to++ = *from++;
}

/* What the window of one result sees. */
static void gather(const ek_q_conv *c, size_t row, int8_t *to) {
    size_t pixels = (size_t)c->out_h * (size_t)c->out_w, place = row % pixels, channels = (size_t)c->channels;
    const int8_t *image = c->x + row / pixels * (size_t)c->height * (size_t)c->width * channels;
    int h0 = (int)(place / (size_t)c->out_w) * c->a->stride[0] - c->a->padding[0];
    int w0 = (int)(place % (size_t)c->out_w) * c->a->stride[1] - c->a->padding[2], next = c->a->dilation[1];
    int whole = next == 1 && w0 >= 0 && w0 + c->kernel_w <= c->width; /* taps of a row in one piece */
    size_t run = (size_t)(whole ? c->kernel_w : 1) * channels;
    for (int i = 0; i < c->kernel_h; i++) {
        int h = h0 + i * c->a->dilation[0], inside = h >= 0 && h < c->height;
        for (int j = 0; j < (whole ? 1 : c->kernel_w); j++, to += run) {
            int w = w0 + j * next;
            const int8_t *from = image + ((ptrdiff_t)h * c->width + w) * (ptrdiff_t)channels;
            if (inside && w >= 0 && w < c->width) copy(to, from, run);
            else memset(to, c->from.zero, run);
        }
    }
}

/* So many depths of a row, fours of them. */
static void spread(const int8_t *x, size_t depth, uint32_t *to) {
    const int8_t *end = x + depth;
    _Pragma("clang loop unroll_count(4)")
    for (; x < end; x += 4, to += 2 * SIDE) {
        uint32_t four = ek_four(x);
        to[0] = ek_even(four), to[SIDE] = ek_odd(four);
    }
}

/* The part from depth `first` on of SIDE rows, the second of which may be the first again. */
static void read_rows(const ek_q_conv *c, const plan *p, size_t row, size_t first, int8_t *patch, ek_q_rows *to) {
    for (size_t i = 0; i < SIDE; i++) {
        size_t there = smaller(row + i, c->rows - 1);
        if (p->patch) gather(c, there, patch);
        const int8_t *x = p->patch ? patch : c->x + there * c->depth;
        spread(x + first, smaller(p->part, (c->depth + 3) / 4 * 4 - first), &to->even[i]);
    }
}

static __attribute__((noinline)) void multiply(const ek_q_rows *x, const ek_q_columns *w, size_t depth, int32_t sum[SIDE][WIDE]) {
    ek_tile(x, w, depth / 4, sum);
}

/* Where results go: rows are so many bytes apart. */
typedef struct {
    int8_t *y;
    uint8_t *mask; /* or NULL */
    size_t next, next_mask;
} place;

/* A tile's results, WIDE bytes a row. The loop that everything else serves. */
static __attribute__((noinline)) void finish(const ek_q_rows *x, const ek_q_columns *w, size_t depth, const ek_channel *ch, int8_t *y,
                                             size_t next) {
    int32_t s[SIDE][WIDE];
    uint32_t four[SIDE] = {0};
    ek_tile(x, w, depth / 4, s);
    EK_UNROLL
    for (int j = 0; j < WIDE; j++) {
        int32_t m = ch[j].m, round = ch[j].round, high = ch[j].high;
        for (int i = 0; i < SIDE; i++) four[i] |= ((uint32_t)ek_int8(ek_short_result(m, round, high, s[i][j])) & 0xFF) << 8 * j;
    }
    *(ek_anywhere *)y = four[0];
    *(ek_anywhere *)(y + next) = four[1];
}

/* WIDE bits of a mask, of whose byte the lower ones were there before. */
EK_INLINE void put_bits(uint8_t *byte, size_t at, uint32_t bits) { *byte = (uint8_t)(at ? *byte | bits << 4 : bits); }

/* Four results, cut to int8, in a word; *bits: which of them are whole. Of 9 bits, the highest two differ where int8 is too small. */
EK_INLINE uint32_t clamp_four(const int32_t q[WIDE], uint32_t *bits) {
    uint32_t a = ek_lows((uint32_t)ek_int9(q[0]), (uint32_t)ek_int9(q[2])), b = ek_lows((uint32_t)ek_int9(q[1]), (uint32_t)ek_int9(q[3]));
    uint32_t a8 = ek_two_int8(a), b8 = ek_two_int8(b), cut = ((a ^ a8) | (b ^ b8) << 8) & 0x80808080;
    *bits = ~(cut * 0x00204081) >> 28; /* bits 7, 15, 23, 31 to 28 … 31 */
    return (a8 & 0x00FF00FF) | (b8 & 0x00FF00FF) << 8;
}

/* … and their mask, from bit `at` of its byte on. */
static __attribute__((noinline)) void finish_masked(const ek_q_rows *x, const ek_q_columns *w, size_t depth, const ek_channel *ch,
                                                    const place *to, size_t o) {
    int32_t s[SIDE][WIDE];
    ek_tile(x, w, depth / 4, s);
    EK_UNROLL
    for (int j = 0; j < WIDE; j++) {
        int32_t m = ch[j].m, round = ch[j].round, high = ch[j].high;
        for (int i = 0; i < SIDE; i++) s[i][j] = ek_short_result(m, round, high, s[i][j]);
    }
    EK_UNROLL
    for (size_t i = 0; i < SIDE; i++) {
        uint32_t bits;
        *(ek_anywhere *)(to->y + i * to->next + o) = clamp_four(s[i], &bits);
        put_bits(to->mask + i * to->next_mask + o / 8, o % 8, bits);
    }
}

/* Columns o … (n of WIDE) of a pixel; o is a multiple of WIDE, and the columns before them were there before. */
static void put(const ek_q_conv *c, const ek_channel *ch, const int32_t *sum, size_t pixel, size_t o, size_t n) {
    int8_t *y = (int8_t *)c->y + pixel * (size_t)c->outputs + o;
    uint32_t bits = 0;
    for (size_t j = 0; j < n; j++) {
        if (c->a->real) {
            ek_put_real(c, ch + j, sum[j], pixel, o + j);
            continue;
        }
        int32_t q = ek_any_result(ch + j, sum[j], c->to.zero);
        y[j] = (int8_t)ek_int8(q);
        bits |= (uint32_t)(y[j] == q) << j;
    }
    if (!c->mask || c->a->real) return;
    put_bits(c->mask + pixel * c->mask_bytes + o / 8, o % 8, bits);
}

static int are_short(const ek_channel *ch, size_t n) {
    for (size_t j = 0; j < n; j++)
        if (!ch[j].high) return 0;
    return 1;
}

/* Columns o … (n of them) that are packed as a whole. */
static void run_columns(const ek_q_conv *c, const plan *p, size_t o, size_t n, const char *packed, const ek_channel *ch,
                        ek_q_rows *rows, int8_t *patch) {
    size_t outputs = (size_t)c->outputs, whole = are_short(ch, n) ? n / WIDE * WIDE : 0;
    for (size_t row = 0; row < c->rows; row += SIDE) {
        size_t there = smaller(SIDE, c->rows - row);
        place to = {(int8_t *)c->y + row * outputs, c->mask ? c->mask + row * c->mask_bytes : NULL, 0, 0};
        if (there == SIDE) to.next = outputs, to.next_mask = c->mask_bytes;
        const char *at = packed;
        size_t j = 0;
        read_rows(c, p, row, 0, patch, rows);
        for (; j < whole; j += WIDE, at += p->columns) {
            const ek_q_columns *w = (const ek_q_columns *)(const void *)at;
            if (c->mask) finish_masked(rows, w, p->depth, ch + j, &to, o + j);
            else finish(rows, w, p->depth, ch + j, to.y + o + j, to.next);
        }
        for (; j < n; j += WIDE, at += p->columns) {
            int32_t sum[SIDE][WIDE];
            multiply(rows, (const ek_q_columns *)(const void *)at, p->depth, sum);
            for (size_t i = 0; i < there; i++) put(c, ch + j, sum[i], row + i, o + j, smaller(WIDE, n - j));
        }
    }
}

/* Columns o … (n ≤ WIDE) in parts of their depth. */
static void run_parts(const ek_q_conv *c, const plan *p, size_t o, size_t n, ek_q_columns *packed, ek_channel *ch, ek_q_rows *rows,
                      int8_t *patch, int32_t (*sums)[WIDE]) {
    int32_t weights[WIDE] = {0};
    for (size_t k = 0; k < p->depth; k += p->part) {
        size_t depth = smaller(p->part, p->depth - k);
        pack(c, k, depth, o, packed->quads, weights);
        for (size_t j = 0; j < WIDE; j++) packed->start[j] = 0;
        for (size_t row = 0; row < c->rows; row += SIDE) {
            int32_t sum[SIDE][WIDE];
            read_rows(c, p, row, k, patch, rows);
            multiply(rows, packed, depth, sum);
            for (size_t i = 0; i < SIDE; i++)
                for (size_t j = 0; j < WIDE; j++) sums[row + i][j] = k ? ek_wrap_add(sums[row + i][j], sum[i][j]) : sum[i][j];
        }
    }
    for (size_t j = 0; j < n; j++) {
        ch[j] = ek_channel_at(c, o + j, weights[j]);
        for (size_t row = 0; row < c->rows; row++) sums[row][j] = ek_wrap_add(sums[row][j], ch[j].start);
    }
    for (size_t row = 0; row < c->rows; row++) put(c, ch, sums[row], row, o, n);
}

/* Columns o … (n ≤ WIDE) as a whole. */
static void pack_columns(const ek_q_conv *c, const plan *p, size_t o, size_t n, ek_q_columns *to, ek_channel *ch) {
    int32_t weights[WIDE] = {0};
    pack(c, 0, p->depth, o, to->quads, weights);
    for (size_t j = 0; j < WIDE; j++) {
        if (j < n) ch[j] = ek_channel_at(c, o + j, weights[j]);
        to->start[j] = j < n ? ch[j].start : 0;
    }
}

void EK_NAME(ek_q_dense)(const ek_q_conv *c, void *scratch) {
    plan p = plan_of(c);
    size_t outputs = (size_t)c->outputs;
    ek_q_rows *rows = scratch;
    char *packed = (char *)scratch + p.rows;
    ek_channel *channels = (ek_channel *)(void *)(packed + p.tiles * p.columns);
    int32_t(*sums)[WIDE] = (int32_t(*)[WIDE])(void *)((char *)channels + p.channels);
    int8_t *patch = (int8_t *)sums + p.sums;
    memset(rows, 0, p.rows);
    if (p.patch) memset(patch, 0, p.patch);
    for (size_t o = 0; o < outputs; o += p.tiles * WIDE) {
        size_t n = smaller(p.tiles * WIDE, outputs - o);
        if (p.sums) {
            run_parts(c, &p, o, n, (ek_q_columns *)(void *)packed, channels, rows, patch, sums);
            continue;
        }
        for (size_t j = 0; j < n; j += WIDE)
            pack_columns(c, &p, o + j, smaller(WIDE, n - j), (ek_q_columns *)(void *)(packed + j / WIDE * p.columns), channels + j);
        run_columns(c, &p, o, n, packed, channels, rows, patch);
    }
}
