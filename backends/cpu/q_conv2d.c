/* q_conv2d. A dense convolution is a matrix product over patches, in pairs of int16: rows of centred inputs times panels of
 * the weight. A depthwise one is a sum over taps, COLUMNS channels at a time; threads share the channels. Its result may take its
 * input's place, where rows that are still needed are kept aside. */
#include "quant.h"

enum { COLUMNS = 16, VECTORS = COLUMNS / EK_LANES, TILE = 4, ROWS = 4 * TILE };

typedef int8_t bytes __attribute__((vector_size(COLUMNS)));
typedef int32_t sums __attribute__((vector_size(COLUMNS * 4)));
typedef ek_vi ek_vi_anywhere __attribute__((aligned(4)));

typedef struct {
    const ek_call *call;
    const ek_q_conv2d_attrs *a;
    const int8_t *x, *w, *rest; /* the weight, and that of the input channels after its own; or NULL */
    int height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w;
    size_t own; /* input channels of w */
    ek_quant from, to;
    size_t rows, depth, pairs, panels; /* of the product; depth = 2 · pairs, or one less */
    ek_factor *factors;                /* of each output channel */
    int16_t *packed, *patches;
    int8_t *aside; /* the last `span` rows of the input that results were written over, row h at h mod span; or NULL */
    int span;
} conv;

static size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int is_depthwise(const conv *c) { return c->a->groups > 1; }

static conv conv_of(const ek_call *call) {
    const ek_tensor *x = call->in_t[EK_Q_CONV2D_X], *w = call->in_t[EK_Q_CONV2D_W], *y = call->out_t[EK_Q_CONV2D_Y];
    conv c = {.call = call, .a = call->attrs, .x = call->in[EK_Q_CONV2D_X], .w = call->in[EK_Q_CONV2D_W]};
    c.height = (int)x->dim[1], c.width = (int)x->dim[2], c.channels = (int)x->dim[3];
    c.out_h = (int)y->dim[1], c.out_w = (int)y->dim[2], c.outputs = (int)y->dim[3];
    c.kernel_h = (int)w->dim[0], c.kernel_w = (int)w->dim[1];
    c.rows = (size_t)y->dim[0] * y->dim[1] * y->dim[2];
    c.rest = call->in[EK_Q_CONV2D_REST], c.own = w->dim[2];
    c.depth = (size_t)w->dim[0] * w->dim[1] * (call->in_t[EK_Q_CONV2D_REST] ? (size_t)c.channels : w->dim[2]);
    c.pairs = (c.depth + 1) / 2, c.panels = ((size_t)c.outputs + COLUMNS - 1) / COLUMNS;
    c.span = (c.kernel_h - 1) * c.a->dilation[0] + 1;
    c.span = c.span < c.height ? c.span : c.height;
    return c;
}

/* Rows kept aside; only a depthwise convolution whose result has its input's shape can be in place. */
static size_t aside_bytes(const conv *c) {
    int fits = is_depthwise(c) && c->a->stride[0] == 1 && c->a->stride[1] == 1 && c->height == c->out_h && c->width == c->out_w;
    return fits ? up((size_t)c->span * (size_t)c->width * (size_t)c->channels) : 0;
}

static size_t packed_bytes(const conv *c) { return is_depthwise(c) ? 0 : up(c->panels * c->pairs * COLUMNS * 2 * sizeof(int16_t)); }

static size_t patches_bytes(const conv *c) { return is_depthwise(c) ? 0 : up(ROWS * c->pairs * 2 * sizeof(int16_t)); }

static size_t scratch_bytes(const ek_call *call, int threads) {
    conv c = conv_of(call);
    return up((size_t)c.outputs * sizeof(ek_factor)) + packed_bytes(&c) + patches_bytes(&c) * (size_t)threads + aside_bytes(&c);
}

/* n results from `channel` on of a pixel, from their sums. */
static void finish(const conv *c, const int32_t *sum, size_t pixel, size_t channel, size_t n) {
    const int32_t *bias = c->call->in[EK_Q_CONV2D_BIAS];
    if (c->a->real) {
        const float *scale = c->call->in[EK_Q_CONV2D_W_SCALE];
        float *real = (float *)c->call->out[EK_Q_CONV2D_Y] + pixel * (size_t)c->outputs + channel;
        for (size_t i = 0; i < n; i++) {
            int64_t total = ek_saturate((int64_t)sum[i] + (bias ? bias[channel + i] : 0));
            real[i] = (float)((double)total * (c->from.scale * (double)scale[channel + i]));
        }
        return;
    }
    int8_t *y = (int8_t *)c->call->out[EK_Q_CONV2D_Y] + pixel * (size_t)c->outputs + channel;
    uint8_t *mask = c->call->out[EK_Q_CONV2D_MASK];
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t total = (int64_t)sum[i] + (bias ? bias[channel + i] : 0);
        bits |= ek_clamp_to(y + i, ek_rescale(total, c->factors[channel + i]) + c->to.zero) << i;
    }
    if (!mask) return;
    mask += pixel * (((size_t)c->outputs + 7) / 8) + channel / 8;
    mask[0] = (uint8_t)bits;
    if (n > 8) mask[1] = (uint8_t)(bits >> 8);
}

/* --- dense --- */

/* The weights of a depth, of all outputs. */
static const int8_t *weights_at(const conv *c, size_t k) {
    size_t channels = (size_t)c->channels, tap = k / channels, channel = k % channels, outputs = (size_t)c->outputs;
    if (channel < c->own) return c->w + (tap * c->own + channel) * outputs;
    return c->rest + (tap * (channels - c->own) + channel - c->own) * outputs;
}

/* packed[panel][pair][column] = the weights of two neighbouring depths. */
static void pack(const conv *c) {
    int16_t *to = c->packed;
    for (size_t panel = 0; panel < c->panels; panel++)
        for (size_t k = 0; k < 2 * c->pairs; k += 2)
            for (size_t j = panel * COLUMNS; j < (panel + 1) * COLUMNS; j++, to += 2)
                for (size_t i = 0; i < 2; i++)
                    to[i] = k + i < c->depth && j < (size_t)c->outputs ? weights_at(c, k + i)[j] : 0;
}

/* What the window of one result sees, centred; zeros outside the image. */
static void gather(const conv *c, size_t row, int16_t *to) {
    size_t pixels = (size_t)c->out_h * (size_t)c->out_w, place = row % pixels, channels = (size_t)c->channels;
    const int8_t *image = c->x + row / pixels * (size_t)c->height * (size_t)c->width * channels;
    int h0 = (int)(place / (size_t)c->out_w) * c->a->stride[0] - c->a->padding[0];
    int w0 = (int)(place % (size_t)c->out_w) * c->a->stride[1] - c->a->padding[2];
    to[2 * c->pairs - 1] = 0;
    for (int i = 0; i < c->kernel_h; i++) {
        int h = h0 + i * c->a->dilation[0];
        for (int j = 0; j < c->kernel_w; j++, to += channels) {
            int w = w0 + j * c->a->dilation[1];
            if (h < 0 || h >= c->height || w < 0 || w >= c->width) {
                memset(to, 0, channels * sizeof *to);
                continue;
            }
            const int8_t *from = image + ((size_t)h * (size_t)c->width + (size_t)w) * channels;
            for (size_t k = 0; k < channels; k++) to[k] = (int16_t)(from[k] - c->from.zero);
        }
    }
}

typedef int16_t pairs __attribute__((vector_size(EK_LANES * 4)));

/* Lane by lane, the products of two int16 pairs, added. */
EK_INLINE ek_vi multiply_pairs(ek_vi a, ek_vi b) {
#if defined(__AVX512F__)
    return (ek_vi)__builtin_ia32_pmaddwd512((pairs)a, (pairs)b);
#elif defined(__AVX2__)
    return (ek_vi)__builtin_ia32_pmaddwd256((pairs)a, (pairs)b);
#elif defined(__SSE2__)
    return (ek_vi)__builtin_ia32_pmaddwd128((pairs)a, (pairs)b);
#else
    return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

/* TILE rows of patches times one panel. */
static void multiply(const conv *c, const int16_t *a, const int16_t *panel, int32_t to[TILE][COLUMNS]) {
    ek_vi sum[TILE][VECTORS] = {0};
    for (size_t k = 0; k < c->pairs; k++, panel += 2 * COLUMNS) {
        ek_vi b[VECTORS];
        EK_UNROLL
        for (int j = 0; j < VECTORS; j++) b[j] = *(const ek_vi_anywhere *)(panel + 2 * j * EK_LANES);
        EK_UNROLL
        for (int i = 0; i < TILE; i++) {
            int32_t pair;
            memcpy(&pair, a + ((size_t)i * c->pairs + k) * 2, sizeof pair);
            EK_UNROLL
            for (int j = 0; j < VECTORS; j++) sum[i][j] += multiply_pairs((ek_vi){0} + pair, b[j]);
        }
    }
    memcpy(to, sum, sizeof sum);
}

static void dense_part(void *context, int index, int count) {
    const conv *c = context;
    int16_t *patches = c->patches + (size_t)index * patches_bytes(c) / sizeof *patches;
    int32_t sum[TILE][COLUMNS];
    ek_range r = ek_share(c->rows, ROWS, index, count);
    for (size_t row = r.begin; row < r.end; row += ROWS) {
        size_t rows = r.end - row < ROWS ? r.end - row : ROWS;
        for (size_t i = 0; i < rows; i++) gather(c, row + i, patches + i * c->pairs * 2);
        for (size_t panel = 0; panel < c->panels; panel++) {
            size_t channel = panel * COLUMNS, left = (size_t)c->outputs - channel, n = left < COLUMNS ? left : COLUMNS;
            for (size_t i = 0; i < rows; i += TILE) {
                multiply(c, patches + i * c->pairs * 2, c->packed + channel * c->pairs * 2, sum);
                for (size_t k = i; k < i + TILE && k < rows; k++) finish(c, sum[k - i], row + k, channel, n);
            }
        }
    }
}

/* --- depthwise --- */

EK_INLINE sums load(const int8_t *from, size_t n) {
    bytes v = {0};
    if (n == COLUMNS) memcpy(&v, from, COLUMNS);
    else memcpy(&v, from, n);
    return __builtin_convertvector(v, sums);
}

/* Row h of the input, while row p of the results is made. */
EK_INLINE const int8_t *line(const conv *c, const int8_t *image, int h, int p) {
    size_t row = (size_t)c->width * (size_t)c->channels;
    return c->aside && h <= p ? c->aside + (size_t)(h % c->span) * row : image + (size_t)h * row;
}

/* Keep this thread's channels of row p. */
static void keep_aside(const conv *c, const int8_t *image, int p, ek_range r) {
    size_t channels = (size_t)c->channels, row = (size_t)c->width * channels;
    for (size_t at = r.begin; at < row; at += channels)
        memcpy(c->aside + (size_t)(p % c->span) * row + at, image + (size_t)p * row + at, r.end - r.begin);
}

static void depthwise_pixel(const conv *c, const int8_t *image, int p, int q, size_t channel, size_t n, int32_t *to) {
    sums sum = {0};
    size_t channels = (size_t)c->channels;
    for (int i = 0; i < c->kernel_h; i++) {
        int h = p * c->a->stride[0] - c->a->padding[0] + i * c->a->dilation[0];
        if (h < 0 || h >= c->height) continue;
        const int8_t *row = line(c, image, h, p);
        for (int j = 0; j < c->kernel_w; j++) {
            int w = q * c->a->stride[1] - c->a->padding[2] + j * c->a->dilation[1];
            if (w < 0 || w >= c->width) continue;
            const int8_t *x = row + (size_t)w * channels + channel;
            const int8_t *filter = c->w + (size_t)(i * c->kernel_w + j) * channels + channel;
            sum += (load(x, n) - c->from.zero) * load(filter, n);
        }
    }
    memcpy(to, &sum, sizeof sum);
}

static void depthwise_part(void *context, int index, int count) {
    const conv *c = context;
    int32_t sum[COLUMNS];
    ek_range r = ek_share((size_t)c->channels, COLUMNS, index, count);
    size_t image = (size_t)c->height * (size_t)c->width * (size_t)c->channels, plane = (size_t)c->out_h * (size_t)c->out_w;
    for (size_t pixel = 0; pixel < c->rows; pixel++) {
        const int8_t *x = c->x + pixel / plane * image;
        int p = (int)(pixel % plane / (size_t)c->out_w), q = (int)(pixel % (size_t)c->out_w);
        if (c->aside && q == 0) keep_aside(c, x, p, r);
        for (size_t channel = r.begin; channel < r.end; channel += COLUMNS) {
            size_t n = r.end - channel < COLUMNS ? r.end - channel : COLUMNS;
            depthwise_pixel(c, x, p, q, channel, n, sum);
            finish(c, sum, pixel, channel, n);
        }
    }
}

static void run(const ek_call *call) {
    conv c = conv_of(call);
    const float *scale = call->in[EK_Q_CONV2D_W_SCALE];
    c.from = ek_quant_of(call->in[EK_Q_CONV2D_X_QUANT]);
    if (!c.a->real) c.to = ek_quant_of(call->in[EK_Q_CONV2D_Y_QUANT]);
    c.factors = call->scratch;
    c.packed = (int16_t *)(void *)((char *)call->scratch + up((size_t)c.outputs * sizeof(ek_factor)));
    c.patches = c.packed + packed_bytes(&c) / sizeof *c.packed;
    for (int o = 0; o < c.outputs; o++) c.factors[o] = ek_fixed_point(c.from.scale * (double)scale[o] / c.to.scale);
    if (is_depthwise(&c)) {
        if (call->out[EK_Q_CONV2D_Y] == call->in[EK_Q_CONV2D_X]) c.aside = (int8_t *)c.packed;
        ek_pool_run(call->pool, depthwise_part, &c);
        return;
    }
    pack(&c);
    ek_pool_run(call->pool, dense_part, &c);
}

const ek_kernel EK_NAME(ek_kernel_q_conv2d) = {.scratch_bytes = scratch_bytes, .run = run};
