/* Depthwise convolutions of int8, a block of channels at a time.
 *
 * x86 multiplies pairs of int16 and adds: the two taps of a pair lie above each other. For a row of results, what its pairs of taps
 * see is first brought side by side, column by column, where every window that covers a column finds it; a last row alone is
 * paired with weights of zero. NEON multiplies bytes to int16 and adds those to int32.
 *
 * The result may take its input's place, where rows that are still needed are kept aside. Threads then share the channels, else
 * the rows. */
#include "q_conv2d.h"

#if defined(__aarch64__)
typedef int8_t packed;
enum { ROWS_A_TAP = 1, TAP = EK_Q_BLOCK };
#else
typedef int16_t packed;
enum { ROWS_A_TAP = 2, TAP = 2 * EK_Q_BLOCK };
#endif

typedef ek_vi vector_anywhere __attribute__((aligned(4)));
typedef int8_t bytes_anywhere __attribute__((vector_size(EK_Q_BLOCK), aligned(1)));

static size_t taps_h(const ek_q_conv *c) { return ((size_t)c->kernel_h + ROWS_A_TAP - 1) / ROWS_A_TAP; }

size_t EK_Q_DEPTHWISE(ek_q_depthwise_bytes)(const ek_q_conv *c) {
    return c->blocks * (size_t)c->kernel_w * taps_h(c) * TAP * sizeof(packed);
}

/* to[block][column of the kernel][row or pair of rows][channel][row of the pair] */
void EK_Q_DEPTHWISE(ek_q_depthwise_pack)(const ek_q_conv *c, void *where) {
    packed *to = where;
    for (size_t block = 0; block < c->blocks; block++)
        for (size_t j = 0; j < (size_t)c->kernel_w; j++)
            for (size_t i = 0; i < taps_h(c); i++)
                for (int lane = 0; lane < EK_Q_BLOCK; lane++)
                    for (size_t r = 0; r < ROWS_A_TAP; r++) {
                        size_t h = i * ROWS_A_TAP + r, o = block * EK_Q_BLOCK + (size_t)lane;
                        int known = h < (size_t)c->kernel_h && o < (size_t)c->outputs;
                        *to++ = known ? ek_q_weights_at(c, h * (size_t)c->kernel_w + j)[o] : 0;
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
    return fits ? ek_q_up((size_t)span_of(c) * (size_t)c->width * (size_t)c->channels) : 0;
}

/* A column holds what each pair of taps sees of it; the first one stands for all outside the image. */
static size_t column_length(const ek_q_conv *c) { return taps_h(c) * TAP; }

static size_t columns_bytes(const ek_q_conv *c) {
    return ROWS_A_TAP == 1 ? 0 : ek_q_up(((size_t)c->width + 1) * column_length(c) * sizeof(packed));
}

size_t EK_Q_DEPTHWISE(ek_q_depthwise_work)(const ek_q_conv *c, int threads) { return aside_bytes(c) + columns_bytes(c) * (size_t)threads; }

static int is_over_input(const ek_q_conv *c) { return c->call->out[EK_Q_CONV2D_Y] == c->call->in[EK_Q_CONV2D_X]; }

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
    return is_over_input(c) && h <= p ? (const int8_t *)c->work + (size_t)(h % span_of(c)) * row : image + (size_t)h * row;
}

EK_INLINE ek_q_bytes load(const int8_t *from, size_t n) {
    return n == EK_Q_BLOCK ? (ek_q_bytes) * (const bytes_anywhere *)from : ek_q_load(from, n);
}

/* A row of results of a block of channels. */
typedef struct {
    const ek_q_conv *c;
    const int8_t *image;
    int p;                           /* the row in its image */
    size_t first_pixel, block, n;    /* n channels */
    packed *columns;
    const char *next, *next_end; /* lines to ask for meanwhile: the next row's, which no prefetcher foresees */
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
                add_tap(sum, x, *(const bytes_anywhere *)(weights + (size_t)(j * kernel_h + i) * TAP));
            }
        }
        ek_q_finish(&to, &sum, r->first_pixel + (size_t)q, 1, 1);
    }
}

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

/* Fill the columns. A row outside the image is one pixel, again and again. */
EK_INLINE void bring(const row *r, int pairs, size_t n) {
    const ek_q_conv *c = r->c;
    size_t channel = r->block * EK_Q_BLOCK, channels = (size_t)c->channels, width = (size_t)c->width, length = (size_t)pairs * TAP;
    const ek_q_bytes outside = (ek_q_bytes){0} + (int8_t)c->from.zero;
    for (int i = 0; i < pairs; i++) {
        int h = r->p * c->a->stride[0] - c->a->padding[0] + 2 * i * c->a->dilation[0];
        const int8_t *above = line(c, r->image, h, r->p);
        const int8_t *below = 2 * i + 1 < c->kernel_h ? line(c, r->image, h + c->a->dilation[0], r->p) : NULL;
        size_t step_above = above ? channels : 0, step_below = below ? channels : 0;
        above = above ? above + channel : (const int8_t *)&outside;
        below = below ? below + channel : (const int8_t *)&outside;
        packed *to = r->columns + (size_t)i * TAP;
        interleave(outside, outside, to);
        for (size_t w = 0; w < width; w++, above += step_above, below += step_below) {
            to += length;
            interleave(load(above, n), load(below, n), to);
        }
    }
}

enum { PIXELS = 4 }; /* results that share what is read of weights and factors */

/* What one column of the kernel adds to the sums of n pixels, `step` numbers apart. */
EK_INLINE void add_column(ek_vi (*sum)[EK_Q_VECTORS], const packed *x, ptrdiff_t step, const packed *w, int pairs, int n) {
    for (int i = 0; i < pairs * EK_Q_VECTORS; i++) {
        ek_vi weights = *(const ek_vi *)(const void *)(w + i * 2 * EK_LANES);
        EK_UNROLL
        for (int p = 0; p < n; p++) {
            const ek_vi *from = (const ek_vi *)(const void *)(x + p * step + i * 2 * EK_LANES);
            sum[p][i % EK_Q_VECTORS] += ek_q_pairs(*from, weights);
        }
    }
}

EK_INLINE void make_row(const row *r, int kernel_h, int kernel_w) {
    const ek_q_conv *c = r->c;
    int pairs = (kernel_h + 1) / 2, dilation = c->a->dilation[1];
    ptrdiff_t length = pairs * TAP;
    const packed *weights = (const packed *)c->layer.weights + r->block * (size_t)(kernel_w * length);
    if (r->n == EK_Q_BLOCK) bring(r, pairs, EK_Q_BLOCK);
    else bring(r, pairs, r->n);
    const ek_q_out to = ek_q_out_of(c, r->block);
    const packed *columns = r->columns;
    int out_w = c->out_w, width = c->width, stride = c->a->stride[1], inside = width - (kernel_w - 1) * dilation;
    size_t pixel = r->first_pixel;
    const char *next = r->next, *end = r->next_end;
    ek_vi start[EK_Q_VECTORS], sum[PIXELS][EK_Q_VECTORS];
    begin(r, start);
    for (int q = 0; q < out_w;) {
        int first = q * stride - c->a->padding[2], n = first >= 0 && q + PIXELS <= out_w && first + (PIXELS - 1) * stride < inside ? PIXELS : 1;
        EK_UNROLL
        for (int p = 0; p < PIXELS; p++)
            EK_UNROLL
            for (int v = 0; v < EK_Q_VECTORS; v++) sum[p][v] = start[v];
        if (n == PIXELS) {
            const packed *x = columns + (first + 1) * length;
            for (int j = 0; j < kernel_w; j++) add_column(sum, x + j * dilation * length, stride * length, weights + j * length, pairs, PIXELS);
            ek_q_finish(&to, sum, pixel + (size_t)q, PIXELS, PIXELS);
        } else {
            for (int j = 0; j < kernel_w; j++) {
                int w = first + j * dilation;
                add_column(sum, columns + (w >= 0 && w < width ? w + 1 : 0) * length, 0, weights + j * length, pairs, 1);
            }
            ek_q_finish(&to, sum, pixel + (size_t)q, 1, 1);
        }
        q += n;
        for (int i = 0; i < n && next < end; i++, next += 64) __builtin_prefetch(next, 0, 2);
    }
}

#endif

/* The most usual kernel has its loops unrolled. */
static void make_small_row(const row *r) { make_row(r, 3, 3); }

static void make_any_row(const row *r) { make_row(r, r->c->kernel_h, r->c->kernel_w); }

static void make(const row *r) {
    if (r->c->kernel_h == 3 && r->c->kernel_w == 3) make_small_row(r);
    else make_any_row(r);
}

/* What the next row of results reads first; this block's share of it. */
static void ask_ahead(row *r, size_t blocks, size_t number) {
    const ek_q_conv *c = r->c;
    size_t bytes = (size_t)c->width * (size_t)c->channels, lines = ((size_t)c->a->stride[0] * bytes + 63) / 64;
    ptrdiff_t h = (ptrdiff_t)r->p * c->a->stride[0] - c->a->padding[0] + (ptrdiff_t)(c->kernel_h - 1) * c->a->dilation[0] + 1;
    const char *from = (const char *)r->image + h * (ptrdiff_t)bytes;
    r->next = from + lines * number / blocks * 64, r->next_end = from + lines * (number + 1) / blocks * 64;
}

static void part(void *context, int index, int count) {
    const ek_q_conv *c = context;
    int over = is_over_input(c);
    size_t rows = c->rows / (size_t)c->out_w, image = (size_t)c->height * (size_t)c->width * (size_t)c->channels;
    ek_range mine = ek_share(rows, 1, over ? 0 : index, over ? 1 : count);
    ek_range blocks = ek_share(c->blocks, 1, over ? index : 0, over ? count : 1);
    packed *columns = (packed *)(void *)((char *)c->work + aside_bytes(c) + (size_t)index * columns_bytes(c));
    for (size_t i = mine.begin; i < mine.end; i++) {
        row r = {.c = c, .image = c->x + i / (size_t)c->out_h * image, .p = (int)(i % (size_t)c->out_h), .columns = columns};
        r.first_pixel = i * (size_t)c->out_w;
        for (r.block = blocks.begin; r.block < blocks.end; r.block++) {
            size_t channel = r.block * EK_Q_BLOCK, left = (size_t)c->channels - channel;
            r.n = left < EK_Q_BLOCK ? left : EK_Q_BLOCK;
            if (over) keep_aside(c, r.image, r.p, channel, r.n);
            ask_ahead(&r, blocks.end - blocks.begin, r.block - blocks.begin);
            make(&r);
        }
    }
}

void EK_Q_DEPTHWISE(ek_q_depthwise)(const ek_q_conv *c) { ek_pool_run(c->call->pool, part, (void *)c); }
