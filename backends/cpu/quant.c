/* quantize, dequantize, q_add, q_mean. */
#include "quant.h"

#include "bits.h"

static void to_real(const int8_t *x, const float *pair, float *to, size_t n) {
    ek_quant quant = ek_quant_of(pair);
    for (size_t i = 0; i < n; i++) to[i] = (float)(x[i] - quant.zero) * pair[0];
}

/* An elementwise op with a mask: `values` gives the results of a group at an index, before they are clamped. */
typedef struct {
    const ek_tensor *t;
    int8_t *y;
    uint8_t *mask;
    const void *a;
    const int8_t *b;
    float scale;
    int32_t a_zero, b_zero, y_zero, a_factor, b_factor, shift;
} job;

enum { GROUP = 16 };
typedef int8_t bytes __attribute__((vector_size(GROUP), aligned(1)));
typedef int32_t ints __attribute__((vector_size(GROUP * 4), aligned(4)));
typedef float reals __attribute__((vector_size(GROUP * 4), aligned(4)));

typedef ints values(const job *j, size_t at);

EK_INLINE ints smaller(ints a, int32_t limit) {
    ints less = a < limit;
    return (a & less) | (limit & ~less);
}

EK_INLINE ints larger(ints a, int32_t limit) {
    ints more = a > limit;
    return (a & more) | (limit & ~more);
}

/* Results at `at`, clamped; one bit each that was in range. */
EK_INLINE void store_group(const job *j, size_t at, ints q, uint8_t *mask, size_t n) {
    ints near = smaller(larger(q, -128), 127);
    bytes y = __builtin_convertvector(near, bytes);
    if (n == GROUP) *(bytes *)(j->y + at) = y;
    else memcpy(j->y + at, &y, n);
    if (!mask) return;
    bytes within = __builtin_convertvector(near == q, bytes);
    uint32_t bits = 0;
    for (int i = 0; i < GROUP; i++) bits |= (uint32_t)(within[i] & 1) << i;
    mask[0] = (uint8_t)bits;
    if (n > 8) mask[1] = (uint8_t)(bits >> 8);
}

/* The last of a row, from copies of its operands that are as long as a group. */
EK_INLINE void part_group(const job *j, size_t at, uint8_t *mask, size_t n, values *make, size_t a_bytes) {
    float a[GROUP] = {0};
    int8_t b[GROUP] = {0};
    memcpy(a, (const char *)j->a + at * a_bytes, n * a_bytes);
    if (j->b) memcpy(b, j->b + at, n);
    job copy = *j;
    copy.a = a, copy.b = b;
    store_group(j, at, make(&copy, 0), mask, n);
}

EK_INLINE void run_rows(const job *given, int index, int count, values *make, size_t a_bytes) {
    const job j = *given;
    ek_bit_rows all = j.mask ? ek_rows_of(j.t) : (ek_bit_rows){1, ek_elements(j.t), 0}; /* without bits nothing starts anew */
    ek_bit_part part = ek_bit_share(all, index, count);
    for (size_t r = part.rows.begin; r < part.rows.end; r++) {
        for (size_t c = part.columns.begin; c < part.columns.end; c += GROUP) {
            size_t n = part.columns.end - c, at = r * all.columns + c;
            uint8_t *mask = j.mask ? j.mask + r * all.row_bytes + c / 8 : NULL;
            if (n < GROUP) part_group(&j, at, mask, n, make, a_bytes);
            else store_group(&j, at, make(&j, at), mask, GROUP);
        }
    }
}

/* Whole numbers of magnitudes below 2^22 are what is left in the last bits of a sum with 1.5 · 2^23, rounded to even. */
EK_INLINE ints quantized(const job *j, size_t at) {
    const float limit = 1e6f, magic = 0x1.8p23f;
    reals x = *(const reals *)((const float *)j->a + at) / j->scale;
    ints known = x == x, less = x < limit, more = x > -limit;
    reals far = (reals){0} + limit;
    x = (reals)(((ints)x & less) | ((ints)far & ~less));
    x = (reals)(((ints)x & more) | ((ints)-far & ~more));
    return (((ints)(x + magic) - (ints)((reals){0} + magic)) & known) + j->y_zero;
}

static void quantize_part(void *context, int index, int count) { run_rows(context, index, count, quantized, sizeof(float)); }

static void quantize(const ek_call *call) {
    const float *quant = call->in[EK_QUANTIZE_QUANT];
    job j = {.t = call->in_t[EK_QUANTIZE_X], .y = call->out[EK_QUANTIZE_Y], .mask = call->out[EK_QUANTIZE_MASK],
            .a = call->in[EK_QUANTIZE_X], .scale = quant[0], .y_zero = ek_quant_of(quant).zero};
    ek_parallel(call->pool, ek_elements(j.t), quantize_part, &j);
}

static void dequantize(const ek_call *call) {
    to_real(call->in[EK_DEQUANTIZE_X], call->in[EK_DEQUANTIZE_QUANT], call->out[EK_DEQUANTIZE_Y],
            ek_elements(call->in_t[EK_DEQUANTIZE_X]));
}

EK_INLINE ints added(const job *j, size_t at) {
    ints a = __builtin_convertvector(*(const bytes *)((const int8_t *)j->a + at), ints);
    ints b = __builtin_convertvector(*(const bytes *)(j->b + at), ints);
    int32_t start = (int32_t)((1u << (j->shift - 1)) - (uint32_t)j->a_zero * (uint32_t)j->a_factor - (uint32_t)j->b_zero * (uint32_t)j->b_factor);
    return ((a * j->a_factor + b * j->b_factor + start) >> j->shift) + j->y_zero;
}

static void add_part(void *context, int index, int count) { run_rows(context, index, count, added, 1); }

/* Both factors in units of the larger one's last of 20 bits. */
static void add_factors(job *j, double a, double b) {
    double larger = a > b ? a : b;
    j->shift = 1;
    if (!(a >= 0 && b >= 0 && larger >= 0x1p-10 && larger <= 0x1p10)) return;
    j->shift = 20 - ek_exponent(larger);
    double unit = ek_power_of_two(j->shift);
    j->a_factor = (int32_t)rint(a * unit), j->b_factor = (int32_t)rint(b * unit);
}

static void q_add(const ek_call *call) {
    ek_quant a = ek_quant_of(call->in[EK_Q_ADD_A_QUANT]), b = ek_quant_of(call->in[EK_Q_ADD_B_QUANT]);
    ek_quant y = ek_quant_of(call->in[EK_Q_ADD_Y_QUANT]);
    job j = {.t = call->in_t[EK_Q_ADD_A], .y = call->out[EK_Q_ADD_Y], .mask = call->out[EK_Q_ADD_MASK],
            .a = call->in[EK_Q_ADD_A], .b = call->in[EK_Q_ADD_B], .a_zero = a.zero, .b_zero = b.zero, .y_zero = y.zero};
    add_factors(&j, a.scale / y.scale, b.scale / y.scale);
    ek_parallel(call->pool, ek_elements(j.t), add_part, &j);
}

static size_t mean_scratch(const ek_call *call, int threads) {
    (void)threads;
    return ek_columns(call->in_t[EK_Q_MEAN_X]) * sizeof(int32_t);
}

static void q_mean(const ek_call *call) {
    const ek_tensor *t = call->in_t[EK_Q_MEAN_X];
    const int8_t *x = call->in[EK_Q_MEAN_X];
    int8_t *y = call->out[EK_Q_MEAN_Y];
    uint8_t *mask = call->out[EK_Q_MEAN_MASK];
    int32_t *sum = call->scratch;
    ek_quant from = ek_quant_of(call->in[EK_Q_MEAN_X_QUANT]), to = ek_quant_of(call->in[EK_Q_MEAN_Y_QUANT]);
    size_t channels = t->dim[3], pixels = (size_t)t->dim[1] * t->dim[2];
    ek_factor factor = ek_fixed_point(from.scale / (to.scale * (double)pixels));
    for (uint32_t image = 0; image < t->dim[0]; image++, y += channels) {
        memset(sum, 0, channels * sizeof *sum);
        for (size_t p = 0; p < pixels; p++, x += channels)
            for (size_t c = 0; c < channels; c++) sum[c] += x[c] - from.zero;
        for (size_t c = 0; c < channels; c++) {
            uint32_t bit = ek_clamp_to(y + c, ek_rescale(sum[c], factor) + to.zero);
            if (!mask) continue;
            if (c % 8 == 0) mask[c / 8] = 0;
            mask[c / 8] |= (uint8_t)(bit << c % 8);
        }
        if (mask) mask += (channels + 7) / 8;
    }
}

const ek_kernel EK_NAME(ek_kernel_quantize) = {.run = quantize};
const ek_kernel EK_NAME(ek_kernel_dequantize) = {.run = dequantize};
const ek_kernel EK_NAME(ek_kernel_q_add) = {.run = q_add};
const ek_kernel EK_NAME(ek_kernel_q_mean) = {.scratch_bytes = mean_scratch, .run = q_mean};
