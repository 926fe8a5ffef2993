/* Softmax and its logarithm over the last axis, and their gradients. */
#include "softmax.h"

static void softmax_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_softmax_attrs *a = call->attrs;
    size_t n = ek_columns(call->in_t[EK_SOFTMAX_X]);
    ek_range r = ek_share(ek_elements(call->in_t[EK_SOFTMAX_X]) / n, 1, index, count);
    for (size_t row = r.begin; row < r.end; row++) {
        const float *x = (const float *)call->in[EK_SOFTMAX_X] + row * n;
        float *y = (float *)call->out[EK_SOFTMAX_Y] + row * n, max = ek_row_max(x, n);
        double sum = ek_row_exp(x, max, a->log ? NULL : y, n);
        float log_sum = (float)log(sum), inverse = (float)(1.0 / sum);
        if (a->log) {
            for (size_t i = 0; i < n; i++) y[i] = x[i] - max - log_sum;
        } else {
            for (size_t i = 0; i < n; i++) y[i] *= inverse;
        }
    }
}

static void softmax(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_SOFTMAX_X]), softmax_part, (void *)call);
}

/* dx = dy - exp(y) * sum(dy). */
EK_INLINE void log_softmax_grad_row(const float *dy, const float *y, float *dx, size_t n) {
    double sum = 0.0;
    size_t i = 0;
    for (size_t k = 0; k < n; k++) sum += dy[k];
    for (; i + EK_LANES <= n; i += EK_LANES) ek_store(dx + i, ek_load(dy + i) - ek_exp(ek_load(y + i)) * (float)sum);
    int rest = (int)(n - i);
    if (rest) ek_store_part(dx + i, ek_load_part(dy + i, rest) - ek_exp(ek_load_part(y + i, rest)) * (float)sum, rest);
}

/* dx = y * (dy - sum(dy * y)). */
EK_INLINE void softmax_grad_row(const float *dy, const float *y, float *dx, size_t n) {
    double dot = 0.0;
    for (size_t i = 0; i < n; i++) dot += (double)dy[i] * y[i];
    for (size_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - (float)dot);
}

static void softmax_grad_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_softmax_grad_attrs *a = call->attrs;
    size_t n = ek_columns(call->in_t[EK_SOFTMAX_GRAD_DY]);
    ek_range r = ek_share(ek_elements(call->in_t[EK_SOFTMAX_GRAD_DY]) / n, 1, index, count);
    for (size_t row = r.begin; row < r.end; row++) {
        const float *dy = (const float *)call->in[EK_SOFTMAX_GRAD_DY] + row * n;
        const float *y = (const float *)call->in[EK_SOFTMAX_GRAD_Y] + row * n;
        float *dx = (float *)call->out[EK_SOFTMAX_GRAD_DX] + row * n;
        if (a->log) log_softmax_grad_row(dy, y, dx, n);
        else softmax_grad_row(dy, y, dx, n);
    }
}

static void softmax_grad(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_SOFTMAX_GRAD_DY]), softmax_grad_part, (void *)call);
}

const ek_kernel EK_NAME(ek_kernel_softmax) = {.run = softmax};
const ek_kernel EK_NAME(ek_kernel_softmax_grad) = {.run = softmax_grad};
