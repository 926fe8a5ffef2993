/* Dense convolutions of int8: a matrix product over patches, EK_Q_DEPTHS depths an instruction. Patches are gathered a few rows
 * at a time as the numbers that the instruction takes. */
#include "ahead.h"
#include "q_conv2d.h"

#if defined(__AVX512F__)
enum { TILE = 12 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { TILE = 6 };
#else
enum { TILE = 3 };
#endif
/* Rows of patches that are gathered at a time: few enough that they stay in the first-level cache beside a block's weights. */
enum { LEAST_ROWS = 24, MOST_ROWS = 192, PATCHES_BYTES = 16384 };

typedef ek_vi vector_anywhere __attribute__((aligned(4)));

static size_t groups_of(const ek_q_conv *c) { return (c->depth + EK_Q_DEPTHS - 1) / EK_Q_DEPTHS; }

size_t EK_NAME(ek_q_dense_bytes)(const ek_q_conv *c) {
    return c->blocks * groups_of(c) * EK_Q_BLOCK * EK_Q_DEPTHS * sizeof(ek_q_weight);
}

/* to[block][group][channel][depth] */
void EK_NAME(ek_q_dense_pack)(const ek_q_conv *c, void *where) {
    ek_q_weight *to = where;
    size_t groups = groups_of(c);
    for (size_t k = 0; k < groups * EK_Q_DEPTHS; k++) {
        const int8_t *w = k < c->depth ? ek_q_weights_at(c, k) : NULL;
        for (size_t block = 0; block < c->blocks; block++) {
            ek_q_weight *row = to + (block * groups + k / EK_Q_DEPTHS) * EK_Q_BLOCK * EK_Q_DEPTHS + k % EK_Q_DEPTHS;
            for (int i = 0; i < EK_Q_BLOCK; i++) {
                size_t o = block * EK_Q_BLOCK + (size_t)i;
                row[i * EK_Q_DEPTHS] = w && o < (size_t)c->outputs ? w[o] : 0;
            }
        }
    }
}

static size_t patch_length(const ek_q_conv *c) { return groups_of(c) * EK_Q_DEPTHS; }

static size_t rows_at_a_time(const ek_q_conv *c) {
    size_t rows = PATCHES_BYTES / (patch_length(c) * sizeof(ek_q_number)) / LEAST_ROWS * LEAST_ROWS;
    return rows < LEAST_ROWS ? LEAST_ROWS : rows > MOST_ROWS ? MOST_ROWS : rows;
}

static size_t patches_bytes(const ek_q_conv *c) { return ek_q_up(rows_at_a_time(c) * patch_length(c) * sizeof(ek_q_number)); }

size_t EK_NAME(ek_q_dense_work)(const ek_q_conv *c, int threads) { return patches_bytes(c) * (size_t)threads; }

/* --- patches --- */

/* The numbers that 8 or 16 bytes stand for. */
#define CONVERT(n)                                                                                          \
    EK_INLINE void convert_##n(const int8_t *from, ek_q_number *to) {                                         \
        typedef int8_t bytes __attribute__((vector_size(n), aligned(1)));                                     \
        typedef ek_q_number numbers __attribute__((vector_size(n * sizeof(ek_q_number)), aligned(1)));        \
        bytes x = *(const bytes *)from;                                                                       \
        const int8_t top = INT8_MIN;                                                                          \
        if (EK_Q_OFFSET) x ^= (bytes){0} + top;                                                               \
        *(numbers *)to = __builtin_convertvector(x, numbers);                                                 \
    }
CONVERT(8)
CONVERT(16)

/* What is left of n bytes after whole vectors is converted with some before it again. */
EK_INLINE void convert(const int8_t *from, ek_q_number *to, size_t n) {
    if (n >= 16) {
        for (size_t i = 0; i + 16 <= n; i += 16) convert_16(from + i, to + i);
        if (n % 16) convert_16(from + n - 16, to + n - 16);
    } else if (n >= 8) {
        convert_8(from, to);
        convert_8(from + n - 8, to + n - 8);
    } else {
        for (size_t i = 0; i < n; i++) to[i] = (ek_q_number)(from[i] + EK_Q_OFFSET);
    }
}

EK_INLINE void fill(ek_q_number *to, ek_q_number value, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = value;
}

/* The place of a result: its image, and where its window begins. */
typedef struct {
    const int8_t *image;
    int p, q, h, w;
} place;

static place place_of(const ek_q_conv *c, size_t row) {
    size_t pixels = (size_t)c->out_h * (size_t)c->out_w, at = row % pixels;
    place to = {.image = c->x + row / pixels * (size_t)c->height * (size_t)c->width * (size_t)c->channels};
    to.p = (int)(at / (size_t)c->out_w), to.q = (int)(at % (size_t)c->out_w);
    to.h = to.p * c->a->stride[0] - c->a->padding[0], to.w = to.q * c->a->stride[1] - c->a->padding[2];
    return to;
}

/* What a row of a window sees that is not all inside the image. */
static void gather_edge(const ek_q_conv *c, const int8_t *line, int w0, ek_q_number *to) {
    size_t channels = (size_t)c->channels;
    for (int j = 0; j < c->kernel_w; j++, to += channels) {
        int w = w0 + j * c->a->dilation[1];
        if (line && w >= 0 && w < c->width) convert(line + (size_t)w * channels, to, channels);
        else fill(to, (ek_q_number)(c->from.zero + EK_Q_OFFSET), channels);
    }
}

/* What the windows of n results in a row see, line after line of the image. */
static void gather_run(const ek_q_conv *c, const place *at, size_t n, ek_q_number *to) {
    size_t channels = (size_t)c->channels, seen = (size_t)c->kernel_w * channels, row = (size_t)c->width * channels, length = patch_length(c);
    int stride = c->a->stride[1], last = c->a->dilation[1] == 1 ? c->width - c->kernel_w : -1; /* from where a window is inside */
    for (int i = 0, h = at->h; i < c->kernel_h; i++, h += c->a->dilation[0], to += seen) {
        const int8_t *line = h >= 0 && h < c->height ? at->image + (size_t)h * row : NULL;
        ek_q_number *patch = to;
        for (int k = 0, w = at->w; k < (int)n; k++, w += stride, patch += length) {
            if (line && w >= 0 && w <= last) convert(line + (size_t)w * channels, patch, seen);
            else gather_edge(c, line, w, patch);
        }
    }
}

/* Whether the patches are the image as it lies: a 1×1 window. */
static int is_matrix(const ek_q_conv *c) {
    const ek_q_conv2d_attrs *a = c->a;
    int one = c->kernel_h == 1 && c->kernel_w == 1 && a->stride[0] == 1 && a->stride[1] == 1;
    return one && c->out_h == c->height && c->out_w == c->width && !a->padding[0] && !a->padding[2];
}

/* The patches of some rows; zeros in the last depths, whose weights are none. */
static void gather_rows(const ek_q_conv *c, size_t row, size_t rows, ek_q_number *to) {
    size_t length = patch_length(c), depth = c->depth;
    if (is_matrix(c) && length == depth) {
        convert(c->x + row * depth, to, rows * depth);
        return;
    }
    for (size_t i = 0, n; i < rows; i += n) {
        place at = place_of(c, row + i);
        size_t left = (size_t)(c->out_w - at.q);
        n = rows - i < left ? rows - i : left;
        gather_run(c, &at, n, to + i * length);
    }
    for (size_t i = 0; i < rows && length > depth; i++)
        for (size_t k = depth; k < length; k++) to[i * length + k] = 0;
}

/* --- products --- */

/* The products of one group of depths, added to the sums. */
EK_INLINE void add_products(ek_vi *sum, const ek_q_number *a, const ek_q_weight *b) {
#if defined(__aarch64__) && !defined(__ARM_FEATURE_DOTPROD)
    int16_t pair;
    memcpy(&pair, a, sizeof pair);
    int8x16_t x = vreinterpretq_s8_s16(vdupq_n_s16(pair));
    EK_UNROLL
    for (int v = 0; v < EK_Q_VECTORS; v += 2) {
        int8x16_t w = vld1q_s8(b + v * EK_LANES * EK_Q_DEPTHS);
        sum[v] = vpadalq_s16(sum[v], vmull_s8(vget_low_s8(w), vget_low_s8(x)));
        sum[v + 1] = vpadalq_s16(sum[v + 1], vmull_high_s8(w, x));
    }
#else
    int32_t group;
    memcpy(&group, a, sizeof group);
    ek_vi x = (ek_vi){0} + group;
    EK_UNROLL
    for (int v = 0; v < EK_Q_VECTORS; v++) {
        ek_vi w = *(const vector_anywhere *)(const void *)(b + v * EK_LANES * EK_Q_DEPTHS);
        sum[v] = ek_q_dot(sum[v], x, w);
    }
#endif
}

/* TILE rows of patches times one block; the first `rows` of them are results, from `pixel` on. */
EK_INLINE void multiply(const ek_q_out *to, const ek_q_number *a, size_t groups, const ek_q_weight *b, const int32_t *start, size_t pixel, size_t rows) {
    size_t length = groups * EK_Q_DEPTHS;
    ek_vi sum[TILE][EK_Q_VECTORS];
    EK_UNROLL
    for (int i = 0; i < TILE; i++)
        EK_UNROLL
        for (int v = 0; v < EK_Q_VECTORS; v++) sum[i][v] = *(const vector_anywhere *)(start + v * EK_LANES);
    for (size_t k = 0; k < groups; k++, a += EK_Q_DEPTHS, b += EK_Q_BLOCK * EK_Q_DEPTHS)
        EK_UNROLL
        for (size_t i = 0; i < TILE; i++) add_products(sum[i], a + i * length, b);
    ek_q_finish(to, sum, pixel, TILE, rows < TILE ? rows : TILE);
}

#if defined(__AVX2__)

/* 2 TILE rows times the first half of a block, for the last channels: the sums of two rows are rescaled as those of one block. */
EK_INLINE void multiply_half(const ek_q_out *to, const ek_q_number *a, size_t groups, const ek_q_weight *b, const int32_t *start, size_t pixel) {
    const ek_q_factors twice = {{to->factors->vector[0], to->factors->vector[0]}};
    size_t length = groups * EK_Q_DEPTHS;
    ek_vi sum[TILE][EK_Q_VECTORS];
    EK_UNROLL
    for (int i = 0; i < TILE; i++) sum[i][0] = sum[i][1] = *(const vector_anywhere *)start;
    for (size_t k = 0; k < groups; k++, a += EK_Q_DEPTHS, b += EK_Q_BLOCK * EK_Q_DEPTHS) {
        const ek_vi w = *(const vector_anywhere *)(const void *)b;
        EK_UNROLL
        for (size_t i = 0; i < 2 * TILE; i++) {
            int32_t group;
            memcpy(&group, a + i * length, sizeof group);
            sum[i / 2][i % 2] = ek_q_dot(sum[i / 2][i % 2], (ek_vi){0} + group, w);
        }
    }
    int8_t *at = to->y + pixel * to->row;
    EK_UNROLL
    for (int i = 0; i < TILE; i++, at += 2 * to->row) {
        ek_q_bytes y;
        ek_q_rescale(&twice, to->zero, sum[i], &y, 0);
        memcpy(at, &y, EK_Q_BLOCK / 2);
        memcpy(at + to->row, (const char *)&y + EK_Q_BLOCK / 2, EK_Q_BLOCK / 2);
    }
}

static int has_half(const ek_q_out *to) { return to->plain && to->n == EK_Q_BLOCK / 2; }

#else

EK_INLINE void multiply_half(const ek_q_out *to, const ek_q_number *a, size_t groups, const ek_q_weight *b, const int32_t *start, size_t pixel) {
    (void)to, (void)a, (void)groups, (void)b, (void)start, (void)pixel;
}

static int has_half(const ek_q_out *to) {
    (void)to;
    return 0;
}

#endif

/* What the rows after these are gathered from, where that is plain. */
static ek_ahead next_rows(const ek_q_conv *c, size_t row, size_t end) {
    size_t most = rows_at_a_time(c), rows = end - row < most ? end - row : most, bytes = is_matrix(c) ? rows * c->depth : 0;
    return ek_ahead_of((const float *)(const void *)(c->x + row * c->depth), bytes / sizeof(float), c->blocks);
}

static void part(void *context, int index, int count) {
    const ek_q_conv *c = context;
    ek_q_number *patches = (ek_q_number *)(void *)((char *)c->work + (size_t)index * patches_bytes(c));
    size_t groups = groups_of(c), length = groups * EK_Q_DEPTHS, most = rows_at_a_time(c);
    ek_range r = ek_share(c->rows, LEAST_ROWS, index, count);
    for (size_t row = r.begin; row < r.end; row += most) {
        size_t rows = r.end - row < most ? r.end - row : most;
        gather_rows(c, row, rows, patches);
        ek_ahead next = next_rows(c, row + rows, r.end);
        for (size_t block = 0; block < c->blocks; block++, ek_ahead_step(&next)) {
            const ek_q_weight *b = (const ek_q_weight *)c->layer.weights + block * groups * EK_Q_BLOCK * EK_Q_DEPTHS;
            const int32_t *start = c->layer.start + block * EK_Q_BLOCK;
            const ek_q_out to = ek_q_out_of(c, block);
            size_t i = 0;
            for (; has_half(&to) && i + 2 * TILE <= rows; i += 2 * TILE) multiply_half(&to, patches + i * length, groups, b, start, row + i);
            for (; i < rows; i += TILE) multiply(&to, patches + i * length, groups, b, start, row + i, rows - i);
        }
    }
}

void EK_NAME(ek_q_dense)(const ek_q_conv *c) { ek_pool_run(c->call->pool, part, (void *)c); }
