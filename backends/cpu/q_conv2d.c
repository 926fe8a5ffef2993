/* q_conv2d: what becomes of the weights of a dense or depthwise convolution, once at load where they are frozen, and its run. */
#include "q_conv2d.h"

static ek_q_conv conv_of(const ek_call *call) {
    const ek_tensor *x = call->in_t[EK_Q_CONV2D_X], *w = call->in_t[EK_Q_CONV2D_W], *y = call->out_t[EK_Q_CONV2D_Y];
    ek_q_conv c = {.call = call, .a = call->attrs, .x = call->in[EK_Q_CONV2D_X], .w = call->in[EK_Q_CONV2D_W]};
    c.height = (int)x->dim[1], c.width = (int)x->dim[2], c.channels = (int)x->dim[3];
    c.out_h = (int)y->dim[1], c.out_w = (int)y->dim[2], c.outputs = (int)y->dim[3];
    c.kernel_h = (int)w->dim[0], c.kernel_w = (int)w->dim[1];
    c.rows = (size_t)y->dim[0] * y->dim[1] * y->dim[2];
    c.rest = call->in[EK_Q_CONV2D_REST], c.own = w->dim[2];
    c.depth = (size_t)w->dim[0] * w->dim[1] * (call->in_t[EK_Q_CONV2D_REST] ? (size_t)c.channels : w->dim[2]);
    c.blocks = ((size_t)c.outputs + EK_Q_BLOCK - 1) / EK_Q_BLOCK;
    return c;
}

static void read_quants(ek_q_conv *c) {
    c->from = ek_quant_of(c->call->in[EK_Q_CONV2D_X_QUANT]);
    if (!c->a->real) c->to = ek_quant_of(c->call->in[EK_Q_CONV2D_Y_QUANT]);
}

/* --- layers: a flag in a line of its own, factors, starts, weights --- */

static size_t factors_bytes(const ek_q_conv *c) { return ek_q_up(c->blocks * sizeof(ek_q_factors)); }

static size_t starts_bytes(const ek_q_conv *c) { return ek_q_up(c->blocks * EK_Q_BLOCK * sizeof(int32_t)); }

static size_t weights_bytes(const ek_q_conv *c) {
    return ek_q_up(ek_q_is_depthwise(c) ? EK_Q_DEPTHWISE(ek_q_depthwise_bytes)(c) : EK_NAME(ek_q_dense_bytes)(c));
}

static size_t layer_bytes(const ek_q_conv *c) { return 64 + factors_bytes(c) + starts_bytes(c) + weights_bytes(c); }

static ek_q_layer layer_at(const ek_q_conv *c, const char *at) {
    ek_q_layer layer = {.exact = *(const int *)(const void *)at};
    layer.factors = (const void *)(at + 64);
    layer.start = (const void *)(at + 64 + factors_bytes(c));
    layer.weights = at + 64 + factors_bytes(c) + starts_bytes(c);
    return layer;
}

static ek_factor factor_of(const ek_q_conv *c, size_t o) {
    const float *scale = c->call->in[EK_Q_CONV2D_W_SCALE];
    return ek_fixed_point(c->from.scale * (double)scale[o] / c->to.scale);
}

/* A block's sums of weights and of their magnitudes, by channel. */
static void add_weights(const ek_q_conv *c, size_t block, int32_t *sum, int32_t *magnitude) {
    size_t first = block * EK_Q_BLOCK, left = (size_t)c->outputs - first, n = left < EK_Q_BLOCK ? left : EK_Q_BLOCK;
    for (size_t k = 0; k < c->depth; k++) {
        const int8_t *w = ek_q_weights_at(c, k) + first;
        for (size_t i = 0; i < n; i++) sum[i] += w[i], magnitude[i] += w[i] < 0 ? -w[i] : w[i];
    }
}

/* Whether a sum of products with this channel's weights, and its bias, stays within int32 whatever x is, and its factor has vectors. */
static int is_plain(const ek_q_conv *c, size_t o, int32_t magnitude) {
    const int32_t *bias = c->call->in[EK_Q_CONV2D_BIAS];
    int64_t b = bias ? bias[o] : 0;
    ek_factor f = factor_of(c, o);
    return (!f.m || f.shift >= EK_Q_LEAST_SHIFT) && 255 * (int64_t)magnitude + (b < 0 ? -b : b) <= INT32_MAX;
}

static void make_layer(const ek_q_conv *c, char *at) {
    const int32_t *bias = c->call->in[EK_Q_CONV2D_BIAS];
    ek_q_factors *factors = (void *)(at + 64);
    int32_t *start = (void *)(at + 64 + factors_bytes(c));
    uint32_t zero = (uint32_t)(c->from.zero + (ek_q_is_depthwise(c) ? 0 : EK_Q_OFFSET));
    int exact = 0;
    for (size_t block = 0; block < c->blocks; block++) {
        int32_t sum[EK_Q_BLOCK] = {0}, magnitude[EK_Q_BLOCK] = {0};
        add_weights(c, block, sum, magnitude);
        for (int i = 0; i < EK_Q_BLOCK; i++) {
            size_t o = block * EK_Q_BLOCK + (size_t)i;
            start[o] = (int32_t)(0 - zero * (uint32_t)sum[i]);
            exact = exact || (o < (size_t)c->outputs && !is_plain(c, o, magnitude[i]));
        }
    }
    for (size_t o = 0; o < c->blocks * EK_Q_BLOCK && !exact; o++) {
        int in_block = (int)(o % EK_Q_BLOCK), known = o < (size_t)c->outputs;
        if (known && bias) start[o] = (int32_t)((uint32_t)start[o] + (uint32_t)bias[o]);
        ek_q_set(&factors[o / EK_Q_BLOCK], in_block / EK_LANES, in_block % EK_LANES, known ? factor_of(c, o) : (ek_factor){0, 32});
    }
    *(int *)(void *)at = exact;
    char *weights = at + 64 + factors_bytes(c) + starts_bytes(c);
    if (ek_q_is_depthwise(c)) EK_Q_DEPTHWISE(ek_q_depthwise_pack)(c, weights);
    else EK_NAME(ek_q_dense_pack)(c, weights);
}

/* Sums of a block of channels at a pixel to results there. */
static void finish_exactly(const ek_q_conv *c, const ek_vi *sum, size_t pixel, size_t block) {
    const int32_t *bias = c->call->in[EK_Q_CONV2D_BIAS];
    const float *scale = c->call->in[EK_Q_CONV2D_W_SCALE];
    size_t outputs = (size_t)c->outputs, at = pixel * outputs;
    uint8_t *mask = c->call->out[EK_Q_CONV2D_MASK];
    uint32_t bits = 0;
    for (int v = 0; v < EK_Q_VECTORS; v++) {
        for (int lane = 0; lane < EK_LANES; lane++) {
            int place = v * EK_LANES + lane;
            size_t o = block * EK_Q_BLOCK + (size_t)place;
            if (o >= outputs) continue;
            int64_t total = (int64_t)sum[v][lane] + (bias ? bias[o] : 0);
            double unit = c->from.scale * (double)scale[o];
            if (c->a->real) {
                ((float *)c->call->out[EK_Q_CONV2D_Y])[at + o] = (float)((double)ek_saturate(total) * unit);
                continue;
            }
            int64_t q = ek_rescale(total, ek_fixed_point(unit / c->to.scale)) + c->to.zero;
            bits |= ek_clamp_to((int8_t *)c->call->out[EK_Q_CONV2D_Y] + at + o, q) << place;
        }
    }
    if (!mask || c->a->real) return;
    size_t channel = block * EK_Q_BLOCK, n = outputs - channel < EK_Q_BLOCK ? outputs - channel : EK_Q_BLOCK;
    memcpy(mask + pixel * ((outputs + 7) / 8) + channel / 8, &bits, (n + 7) / 8);
}

/* Sums that fit int32 to real numbers. */
static void finish_real(const ek_q_conv *c, const ek_vi *sum, size_t pixel, size_t block) {
    typedef double doubles __attribute__((vector_size(EK_LANES * 8)));
    const float *scale = c->call->in[EK_Q_CONV2D_W_SCALE];
    float *y = (float *)c->call->out[EK_Q_CONV2D_Y] + pixel * (size_t)c->outputs;
    size_t o = block * EK_Q_BLOCK, outputs = (size_t)c->outputs;
    for (int v = 0; v < EK_Q_VECTORS && o < outputs; v++, o += EK_LANES) {
        int n = outputs - o < EK_LANES ? (int)(outputs - o) : EK_LANES;
        ek_vf scales = n == EK_LANES ? ek_load(scale + o) : ek_load_part(scale + o, n);
        doubles units = __builtin_convertvector(scales, doubles) * c->from.scale;
        ek_vf real = __builtin_convertvector(__builtin_convertvector(sum[v], doubles) * units, ek_vf);
        if (n == EK_LANES) ek_store(y + o, real);
        else ek_store_part(y + o, real, n);
    }
}

void EK_NAME(ek_q_finish_any)(const ek_q_out *to, const ek_vi *sums, size_t pixel, size_t n) {
    for (size_t end = pixel + n; pixel < end; pixel++, sums += EK_Q_VECTORS) {
        if (to->conv->layer.exact) {
            finish_exactly(to->conv, sums, pixel, to->block);
            continue;
        }
        if (to->conv->a->real) {
            finish_real(to->conv, sums, pixel, to->block);
            continue;
        }
        ek_q_bytes y;
        uint32_t bits = ek_q_rescale(to->factors, to->zero, sums, &y, 1);
        int8_t *at = to->y + pixel * to->row;
        if (to->n == EK_Q_BLOCK) memcpy(at, &y, EK_Q_BLOCK);
        else ek_q_store(at, y, to->n);
        for (size_t k = 0; to->mask && k < (to->n + 7) / 8; k++) to->mask[pixel * to->mask_row + k] = (uint8_t)(bits >> 8 * k);
    }
}

/* --- the kernel --- */

/* Whether all that a layer is made from is frozen. */
static int is_frozen(const ek_call *call) {
    const int made_from[] = {EK_Q_CONV2D_W, EK_Q_CONV2D_W_SCALE, EK_Q_CONV2D_X_QUANT, EK_Q_CONV2D_Y_QUANT, EK_Q_CONV2D_BIAS, EK_Q_CONV2D_REST};
    for (size_t i = 0; i < sizeof made_from / sizeof *made_from; i++)
        if (call->in_t[made_from[i]] && call->in_t[made_from[i]]->storage != EK_CONSTANT) return 0;
    return 1;
}

static size_t prepared_bytes(const ek_call *call) {
    ek_q_conv c = conv_of(call);
    return is_frozen(call) ? layer_bytes(&c) : 0;
}

static void prepare(const ek_call *call, void *to) {
    ek_q_conv c = conv_of(call);
    read_quants(&c);
    make_layer(&c, to);
}

static size_t scratch_bytes(const ek_call *call, int threads) {
    ek_q_conv c = conv_of(call);
    size_t work = ek_q_is_depthwise(&c) ? EK_Q_DEPTHWISE(ek_q_depthwise_work)(&c, threads) : EK_NAME(ek_q_dense_work)(&c, threads);
    return work + (is_frozen(call) ? 0 : layer_bytes(&c));
}

static void run(const ek_call *call) {
    ek_q_conv c = conv_of(call);
    read_quants(&c);
    c.work = call->scratch;
    if (!call->prepared) {
        make_layer(&c, call->scratch);
        c.work = (char *)call->scratch + layer_bytes(&c);
    }
    c.layer = layer_at(&c, call->prepared ? call->prepared : call->scratch);
    if (ek_q_is_depthwise(&c)) EK_Q_DEPTHWISE(ek_q_depthwise)(&c);
    else EK_NAME(ek_q_dense)(&c);
}

const ek_kernel EK_NAME(ek_kernel_q_conv2d) = {scratch_bytes, prepared_bytes, prepare, run};
