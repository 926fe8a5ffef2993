/* Depthwise convolutions of int8, a block of channels at a time.
 *
 * x86 multiplies pairs of int16 and adds: the two taps of a pair lie above each other. Two rows of the image are brought side by
 * side as int16, column by column with those outside the image, where every window that covers them finds them: with a stride of
 * 1 the windows of two rows of results, whose weights are paired differently for each, a tap alone with a weight of zero. The
 * pairs of rows that the next results see too stay where they are. NEON multiplies bytes to int16 and adds those to int32.
 *
 * The result may take its input's place: a pair of rows is brought before results are written over it. Where that does not do,
 * rows that are still needed are kept aside. Threads then share the images or the channels, else the rows. */
#include "q_conv2d.h"

#if defined(__aarch64__)
typedef int8_t packed;
enum { ROWS_A_TAP = 1, TAP = EK_Q_BLOCK };
#else
typedef int16_t packed;
enum { ROWS_A_TAP = 2, TAP = 2 * EK_Q_BLOCK };
#endif
enum { PIXELS = 4, PIXELS_OF_TWO = 3 }; /* results of a row that are computed together, of one row or of two */

typedef ek_vi vector_anywhere __attribute__((aligned(4)));
typedef int8_t bytes_anywhere __attribute__((vector_size(EK_Q_BLOCK), aligned(1)));

/* Whether pairs of rows serve the next results too. */
static int is_rolling(const ek_q_conv *c) { return ROWS_A_TAP == 2 && c->a->dilation[0] == 1 && c->a->stride[0] <= 2; }

/* Rows of results that are computed together. */
static size_t rows_a_step(const ek_q_conv *c) { return is_rolling(c) && c->a->stride[0] == 1 ? 2 : 1; }

static size_t taps_h(const ek_q_conv *c) { return ROWS_A_TAP == 1 ? (size_t)c->kernel_h : (size_t)c->kernel_h / 2 + 1; }

static size_t weights_length(const ek_q_conv *c) { return rows_a_step(c) * taps_h(c) * (size_t)c->kernel_w * TAP; }

size_t EK_Q_DEPTHWISE(ek_q_depthwise_bytes)(const ek_q_conv *c) { return c->blocks * weights_length(c) * sizeof(packed); }

/* to[block][row or pair of rows][column of the kernel][row of results][channel][row of the pair] */
void EK_Q_DEPTHWISE(ek_q_depthwise_pack)(const ek_q_conv *c, void *where) {
    packed *to = where;
    size_t width = (size_t)c->kernel_w, of_results = rows_a_step(c), columns = taps_h(c) * width;
    for (size_t i = 0; i < c->blocks * weights_length(c); i++) {
        size_t in_pair = i % ROWS_A_TAP, channel = i / ROWS_A_TAP % EK_Q_BLOCK, result = i / TAP % of_results;
        size_t column = i / TAP / of_results % columns, block = i / TAP / of_results / columns;
        size_t h = column / width * ROWS_A_TAP + in_pair - result, o = block * EK_Q_BLOCK + channel; /* h wraps below 0 */
        int known = h < (size_t)c->kernel_h && o < (size_t)c->outputs;
        to[i] = known ? ek_q_weights_at(c, h * width + column % width)[o] : 0;
    }
}

/* --- working memory: rows kept aside, then each thread's columns --- */

static int span_of(const ek_q_conv *c) {
    int span = (c->kernel_h - 1) * c->a->dilation[0] + 1;
    return span < c->height ? span : c->height;
}

/* Only a depthwise convolution whose result has its input's shape can be in place. */
static size_t aside_bytes(const ek_q_conv *c) {
    int fits = c->a->stride[0] == 1 && c->a->stride[1] == 1 && c->height == c->out_h && c->width == c->out_w;
    return fits && !is_rolling(c) ? ek_q_up((size_t)span_of(c) * (size_t)c->width * (size_t)c->channels) : 0;
}

/* Columns of a row of the image that windows see, those outside it and of PIXELS results at least. */
static size_t columns_of(const ek_q_conv *c) {
    size_t results = c->out_w < PIXELS ? PIXELS : (size_t)c->out_w;
    return (results - 1) * (size_t)c->a->stride[1] + (size_t)(c->kernel_w - 1) * (size_t)c->a->dilation[1] + 1;
}

/* All columns of a pair of rows, block by block. */
static size_t pair_length(const ek_q_conv *c) { return c->blocks * columns_of(c) * TAP; }

static size_t columns_bytes(const ek_q_conv *c) { return ROWS_A_TAP == 1 ? 0 : ek_q_up(taps_h(c) * pair_length(c) * sizeof(packed)); }

size_t EK_Q_DEPTHWISE(ek_q_depthwise_work)(const ek_q_conv *c, int threads) { return aside_bytes(c) + columns_bytes(c) * (size_t)threads; }

static int is_over_input(const ek_q_conv *c) { return c->call->out[EK_Q_CONV2D_Y] == c->call->in[EK_Q_CONV2D_X]; }

static int keeps_aside(const ek_q_conv *c) { return is_over_input(c) && !is_rolling(c); }

/* Keep some channels of row p. */
static void keep_aside(const ek_q_conv *c, const int8_t *image, int p, size_t channel, size_t n) {
    size_t channels = (size_t)c->channels, row = (size_t)c->width * channels;
    int8_t *to = (int8_t *)c->work + (size_t)(p % span_of(c)) * row;
    for (size_t at = channel; at < row; at += channels) memcpy(to + at, image + (size_t)p * row + at, n);
}

/* Row h of the input, while row p of the results is made; NULL outside. */
EK_INLINE const int8_t *line(const ek_q_conv *c, const int8_t *image, int h, int p) {
    size_t row = (size_t)c->width * (size_t)c->channels;
    if (h < 0 || h >= c->height) return NULL;
    return keeps_aside(c) && h <= p ? (const int8_t *)c->work + (size_t)(h % span_of(c)) * row : image + (size_t)h * row;
}

EK_INLINE ek_q_bytes load(const int8_t *from, size_t n) {
    return n == EK_Q_BLOCK ? (ek_q_bytes) * (const bytes_anywhere *)from : ek_q_load(from, n);
}

/* A row of results, or two, of a block of channels. */
typedef struct {
    const ek_q_conv *c;
    const int8_t *image;
    int p, fresh;                /* the first row in its image; whether nothing of what it sees was brought before */
    size_t first_pixel, block, n; /* n channels */
    packed *columns;
    const char *next, *next_end; /* lines to ask for meanwhile: the next rows', which no prefetcher foresees */
} row;

EK_INLINE void begin(const row *r, ek_vi *sum) {
    const int32_t *start = r->c->layer.start + r->block * EK_Q_BLOCK;
    EK_UNROLL
    for (int v = 0; v < EK_Q_VECTORS; v++) sum[v] = *(const vector_anywhere *)(start + v * EK_LANES);
}

#if defined(__aarch64__)

EK_INLINE void add_tap(ek_vi *sum, ek_q_bytes x, ek_q_bytes w) {
    int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w)), high = vmull_high_s8(x, w);
    sum[0] = vaddw_s16(sum[0], vget_low_s16(low)), sum[1] = vaddw_high_s16(sum[1], low);
    sum[2] = vaddw_s16(sum[2], vget_low_s16(high)), sum[3] = vaddw_high_s16(sum[3], high);
}

EK_INLINE void make_row(const row *r, int kernel_h, int kernel_w) {
    const ek_q_conv *c = r->c;
    const packed *weights = (const packed *)c->layer.weights + r->block * (size_t)kernel_w * (size_t)kernel_h * TAP;
    const ek_q_bytes outside = (ek_q_bytes){0} + (int8_t)c->from.zero;
    const ek_q_out to = ek_q_out_of(c, r->block);
    size_t channels = (size_t)c->channels;
    for (int q = 0; q < c->out_w; q++) {
        ek_vi sum[EK_Q_VECTORS];
        begin(r, sum);
        for (int i = 0; i < kernel_h; i++) {
            const int8_t *from = line(c, r->image, r->p * c->a->stride[0] - c->a->padding[0] + i * c->a->dilation[0], r->p);
            for (int j = 0; j < kernel_w; j++) {
                int w = q * c->a->stride[1] - c->a->padding[2] + j * c->a->dilation[1];
                int inside = from && w >= 0 && w < c->width;
                ek_q_bytes x = inside ? load(from + (size_t)w * channels + r->block * EK_Q_BLOCK, r->n) : outside;
                add_tap(sum, x, *(const bytes_anywhere *)(weights + (size_t)(i * kernel_w + j) * TAP));
            }
        }
        ek_q_finish(&to, &sum, r->first_pixel + (size_t)q, 1, 1);
    }
}

/* The most usual kernel has its loops unrolled. */
static void make_small(const row *r) { make_row(r, 3, 3); }

static void make_any(const row *r) { make_row(r, r->c->kernel_h, r->c->kernel_w); }

#else

typedef int16_t words __attribute__((vector_size(EK_Q_BLOCK * 2)));

/* Two rows' channels side by side, as vectors of pairs. */
EK_INLINE void interleave(ek_q_bytes above, ek_q_bytes below, packed *to) {
#if defined(__AVX512F__)
    ek_q_bytes low = __builtin_shufflevector(above, below, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44,
            13, 45, 14, 46, 15, 47);
    ek_q_bytes high = __builtin_shufflevector(above, below, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27,
            59, 28, 60, 29, 61, 30, 62, 31, 63);
#elif defined(__AVX2__)
    ek_q_bytes low = __builtin_shufflevector(above, below, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    ek_q_bytes high = __builtin_shufflevector(above, below, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#else
    ek_q_bytes low = __builtin_shufflevector(above, below, 0, 8, 1, 9, 2, 10, 3, 11);
    ek_q_bytes high = __builtin_shufflevector(above, below, 4, 12, 5, 13, 6, 14, 7, 15);
#endif
    *(words *)(void *)to = __builtin_convertvector(low, words);
    *(words *)(void *)(to + EK_Q_BLOCK) = __builtin_convertvector(high, words);
}

/* Bring two rows' columns of n channels. A row outside the image is one pixel, again and again. */
EK_INLINE void bring_pair(const ek_q_conv *c, const int8_t *above, const int8_t *below, packed *to, size_t n) {
    const ek_q_bytes outside = (ek_q_bytes){0} + (int8_t)c->from.zero;
    size_t channels = (size_t)c->channels, step_above = above ? channels : 0, step_below = below ? channels : 0;
    above = above ? above : (const int8_t *)&outside;
    below = below ? below : (const int8_t *)&outside;
    int left = c->a->padding[2], end = (int)columns_of(c) - left, inside = c->width < end ? c->width : end;
    for (int w = -left; w < 0 && w < end; w++, to += TAP) interleave(outside, outside, to);
    for (int w = 0; w < inside; w++, above += step_above, below += step_below, to += TAP) interleave(load(above, n), load(below, n), to);
    for (int w = inside; w < end; w++, to += TAP) interleave(outside, outside, to);
}

/* Where the columns of the pair of rows lie that a row of results sees first; the others follow round the ring of them. */
EK_INLINE size_t first_slot(const row *r) {
    return is_rolling(r->c) ? (size_t)r->p / rows_a_step(r->c) % taps_h(r->c) : 0;
}

EK_INLINE packed *columns_at(const row *r, size_t slot) {
    return r->columns + slot * pair_length(r->c) + r->block * columns_of(r->c) * TAP;
}

/* Bring what the results see and was not brought for those before. */
static void bring(const row *r) {
    const ek_q_conv *c = r->c;
    int pairs = (int)taps_h(c), dilation = c->a->dilation[0], first = r->p * c->a->stride[0] - c->a->padding[0];
    size_t channel = r->block * EK_Q_BLOCK;
    for (int i = r->fresh || !is_rolling(c) ? 0 : pairs - 1; i < pairs; i++) {
        const int8_t *above = line(c, r->image, first + 2 * i * dilation, r->p), *below = line(c, r->image, first + (2 * i + 1) * dilation, r->p);
        above = above ? above + channel : NULL, below = below ? below + channel : NULL;
        packed *to = columns_at(r, (first_slot(r) + (size_t)i) % (size_t)pairs);
        if (r->n == EK_Q_BLOCK) bring_pair(c, above, below, to, EK_Q_BLOCK);
        else bring_pair(c, above, below, to, r->n);
    }
}

/* What a pair of rows adds to the sums of `rows` rows of `pixels` results, `step` numbers apart. */
EK_INLINE void add_pair(ek_vi (*sum)[PIXELS][EK_Q_VECTORS], const packed *x, const packed *w, size_t step, size_t dilation, int kernel_w, int rows,
        int pixels) {
    for (int j = 0; j < kernel_w; j++, x += dilation, w += rows * TAP)
        EK_UNROLL
        for (int v = 0; v < EK_Q_VECTORS; v++) {
            ek_vi weights[2];
            EK_UNROLL
            for (int i = 0; i < rows; i++) weights[i] = *(const ek_vi *)(const void *)(w + i * TAP + v * 2 * EK_LANES);
            EK_UNROLL
            for (int p = 0; p < pixels; p++) {
                ek_vi from = *(const ek_vi *)(const void *)(x + (size_t)p * step + v * 2 * EK_LANES);
                EK_UNROLL
                for (int i = 0; i < rows; i++) sum[i][p][v] += ek_q_pairs(from, weights[i]);
            }
        }
}

EK_INLINE void make_rows(const row *r, int kernel_h, int kernel_w, int rows, int pixels) {
    const ek_q_conv *c = r->c;
    int pairs = kernel_h / 2 + 1, out_w = c->out_w, whole = r->p + rows <= c->out_h;
    size_t step = (size_t)c->a->stride[1] * TAP, dilation = (size_t)c->a->dilation[1] * TAP;
    const packed *weights = (const packed *)c->layer.weights + r->block * (size_t)(rows * pairs * kernel_w * TAP);
    const ek_q_out to = ek_q_out_of(c, r->block);
    const char *next = r->next, *end = r->next_end;
    const size_t length = pair_length(c), around = length * (size_t)pairs;
    const packed *columns = columns_at(r, 0), *first = columns_at(r, first_slot(r)), *last = columns + around;
    ek_vi start[EK_Q_VECTORS], sum[2][PIXELS][EK_Q_VECTORS];
    begin(r, start);
    for (int q = 0; q < out_w; q += pixels) {
        if (q > out_w - pixels && out_w >= pixels) q = out_w - pixels; /* the last ones, some of them again */
        EK_UNROLL
        for (int i = 0; i < rows; i++)
            EK_UNROLL
            for (int p = 0; p < pixels; p++)
                EK_UNROLL
                for (int v = 0; v < EK_Q_VECTORS; v++) sum[i][p][v] = start[v];
        const packed *x = first + (size_t)q * step, *w = weights;
        for (int i = 0; i < pairs; i++, w += kernel_w * rows * TAP) {
            add_pair(sum, x, w, step, dilation, kernel_w, rows, pixels);
            x += length;
            if (x >= last) x -= around;
        }
        /* Else clang computes the second row's sums only where they are stored, from all operands, kept in memory. */
        EK_UNROLL
        for (int p = 0; rows == 2 && p < pixels; p++)
            EK_UNROLL
            for (int v = 0; v < EK_Q_VECTORS; v++) __asm__("" : "+x"(sum[1][p][v]));
        size_t pixel = r->first_pixel + (size_t)q, n = out_w < pixels ? (size_t)out_w : (size_t)pixels;
        ek_q_finish(&to, sum[0], pixel, pixels, n);
        if (rows == 2 && whole) ek_q_finish(&to, sum[1], pixel + (size_t)out_w, pixels, n);
        for (int i = 0; i < pixels && next < end; i++, next += 64) __builtin_prefetch(next, 0, 2);
    }
}

/* The most usual kernel has its loops unrolled. */
static void make_small(const row *r) {
    bring(r);
    if (rows_a_step(r->c) == 2) make_rows(r, 3, 3, 2, PIXELS_OF_TWO);
    else make_rows(r, 3, 3, 1, PIXELS);
}

static void make_any(const row *r) {
    bring(r);
    if (rows_a_step(r->c) == 2) make_rows(r, r->c->kernel_h, r->c->kernel_w, 2, PIXELS_OF_TWO);
    else make_rows(r, r->c->kernel_h, r->c->kernel_w, 1, PIXELS);
}

#endif

static void make(const row *r) {
    if (r->c->kernel_h == 3 && r->c->kernel_w == 3) make_small(r);
    else make_any(r);
}

/* What the next results read first; this block's share of it. */
static void ask_ahead(row *r, size_t blocks, size_t number) {
    const ek_q_conv *c = r->c;
    size_t bytes = (size_t)c->width * (size_t)c->channels, rows = rows_a_step(c), lines = (rows * (size_t)c->a->stride[0] * bytes + 63) / 64;
    int last = is_rolling(c) ? 2 * (int)taps_h(c) - 1 : (c->kernel_h - 1) * c->a->dilation[0];
    ptrdiff_t h = (ptrdiff_t)r->p * c->a->stride[0] - c->a->padding[0] + last + 1;
    const char *from = (const char *)r->image + h * (ptrdiff_t)bytes;
    r->next = from + lines * number / blocks * 64, r->next_end = from + lines * (number + 1) / blocks * 64;
}

static void part(void *context, int index, int count) {
    const ek_q_conv *c = context;
    size_t step = rows_a_step(c), steps = ((size_t)c->out_h + step - 1) / step, images = c->rows / (size_t)c->out_w / (size_t)c->out_h;
    int over = is_over_input(c), by_image = over && !keeps_aside(c) && images >= (size_t)count, by_block = over && !by_image;
    ek_range mine = ek_share(images * steps, by_image ? steps : 1, by_block ? 0 : index, by_block ? 1 : count);
    ek_range blocks = ek_share(c->blocks, 1, by_block ? index : 0, by_block ? count : 1);
    size_t image = (size_t)c->height * (size_t)c->width * (size_t)c->channels;
    packed *columns = (packed *)(void *)((char *)c->work + aside_bytes(c) + (size_t)index * columns_bytes(c));
    for (size_t i = mine.begin; i < mine.end; i++) {
        row r = {.c = c, .image = c->x + i / steps * image, .p = (int)(i % steps * step), .columns = columns};
        r.first_pixel = (i / steps * (size_t)c->out_h + (size_t)r.p) * (size_t)c->out_w, r.fresh = i == mine.begin || r.p == 0;
        for (r.block = blocks.begin; r.block < blocks.end; r.block++) {
            size_t channel = r.block * EK_Q_BLOCK, left = (size_t)c->channels - channel;
            r.n = left < EK_Q_BLOCK ? left : EK_Q_BLOCK;
            if (keeps_aside(c)) keep_aside(c, r.image, r.p, channel, r.n);
            ask_ahead(&r, blocks.end - blocks.begin, r.block - blocks.begin);
            make(&r);
        }
    }
}

void EK_Q_DEPTHWISE(ek_q_depthwise)(const ek_q_conv *c) { ek_pool_run(c->call->pool, part, (void *)c); }
