/* quantize, dequantize, q_add, q_mean. */
#include "quant.h"

#include "bits.h"

static void to_real(const int8_t *x, const float *pair, float *to, size_t n) {
    ek_quant quant = ek_quant_of(pair);
    for (size_t i = 0; i < n; i++) to[i] = (float)(x[i] - quant.zero) * pair[0];
}

/* An elementwise op with a mask: `value` gives the result at an index, before it is clamped. */
typedef struct job job;
struct job {
    int64_t (*value)(const job *job, size_t i);
    const ek_tensor *t;
    int8_t *y;
    uint8_t *mask;
    const void *a;
    const int8_t *b;
    float scale;
    int32_t a_zero, b_zero, y_zero, a_factor, b_factor, shift;
};

EK_INLINE void run_rows(const job *j, int index, int count, int64_t (*value)(const job *, size_t)) {
    ek_bit_rows all = ek_rows_of(j->t);
    ek_bit_part part = ek_bit_share(all, index, count);
    for (size_t r = part.rows.begin; r < part.rows.end; r++) {
        for (size_t c = part.columns.begin; c < part.columns.end; c += 8) {
            size_t n = part.columns.end - c < 8 ? part.columns.end - c : 8, at = r * all.columns + c;
            uint32_t bits = 0;
            for (size_t i = 0; i < n; i++) bits |= ek_clamp_to(j->y + at + i, value(j, at + i)) << i;
            if (j->mask) j->mask[r * all.row_bytes + c / 8] = (uint8_t)bits;
        }
    }
}

EK_INLINE int64_t quantized(const job *j, size_t i) {
    float whole = rintf(((const float *)j->a)[i] / j->scale);
    if (whole != whole) return j->y_zero;
    return (int64_t)(whole < -1e6f ? -1e6f : whole > 1e6f ? 1e6f : whole) + j->y_zero;
}

static void quantize_part(void *context, int index, int count) { run_rows(context, index, count, quantized); }

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

EK_INLINE int64_t added(const job *j, size_t i) {
    int32_t a = ((const int8_t *)j->a)[i] - j->a_zero, b = j->b[i] - j->b_zero;
    return ((a * j->a_factor + b * j->b_factor + (1 << (j->shift - 1))) >> j->shift) + j->y_zero;
}

static void add_part(void *context, int index, int count) { run_rows(context, index, count, added); }

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
