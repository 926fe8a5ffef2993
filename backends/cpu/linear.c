/* linear, linear_input_grad, linear_weight_grad: y = act(x @ w + bias + residual) and its gradients; linear_sgd: the weight's and its
 * SGD step. */
#include "gemm.h"

static size_t columns(const ek_tensor *t) { return t->dim[t->rank - 1]; }

static __attribute__((noinline, minsize)) size_t rows(const ek_tensor *t) {
    size_t n = 1;
    for (int i = 0; i + 1 < t->rank; i++) n *= t->dim[i];
    return n;
}

static ek_weights forward_weights(const ek_call *call) {
    const ek_tensor *w = call->in_t[EK_LINEAR_W];
    return (ek_weights){.from.data = call->in[EK_LINEAR_W], .depth = w->dim[0], .taps_w = 1, .by_k = w->dim[1], .by_n = 1};
}

static ek_weights backward_weights(const ek_call *call) {
    const ek_tensor *w = call->in_t[EK_LINEAR_INPUT_GRAD_W];
    return (ek_weights){.from.data = call->in[EK_LINEAR_INPUT_GRAD_W], .depth = w->dim[1], .taps_w = 1, .by_k = 1,
            .by_n = w->dim[1]};
}

static int worth_packing(size_t m, const ek_tensor *w) {
    return w->storage == EK_CONSTANT && w->dtype == EK_F32 && m <= EK_PACK_ROWS;
}

static size_t forward_scratch(const ek_call *call, int threads) {
    const ek_tensor *w = call->in_t[EK_LINEAR_W];
    return EK_NAME(ek_gemm_scratch)(rows(call->in_t[EK_LINEAR_X]), w->dim[0], w->dim[1], threads);
}

static size_t forward_prepared(const ek_call *call) {
    const ek_tensor *w = call->in_t[EK_LINEAR_W];
    if (!worth_packing(rows(call->in_t[EK_LINEAR_X]), w)) return 0;
    return EK_NAME(ek_gemm_packed_floats)(w->dim[0], w->dim[1]) * sizeof(float);
}

static void forward_prepare(const ek_call *call, void *to) {
    const ek_tensor *w = call->in_t[EK_LINEAR_W];
    ek_weights b = forward_weights(call);
    EK_NAME(ek_gemm_pack)(&b, w->dim[0], w->dim[1], to);
}

static void forward_run(const ek_call *call) {
    const ek_linear_attrs *attrs = call->attrs;
    const ek_tensor *x = call->in_t[EK_LINEAR_X], *w = call->in_t[EK_LINEAR_W];
    ek_gemm g = {.m = rows(x), .k = w->dim[0], .n = w->dim[1], .b = forward_weights(call), .packed = call->prepared};
    g.a = (ek_rows){.from.data = call->in[EK_LINEAR_X], .ld = g.k};
    g.finish = ek_forward_epilogue(call, attrs->act);
    EK_NAME(ek_gemm)(&g, call->pool, call->scratch);
}

static size_t input_grad_scratch(const ek_call *call, int threads) {
    const ek_tensor *w = call->in_t[EK_LINEAR_INPUT_GRAD_W];
    return EK_NAME(ek_real_bytes)(w)
            + EK_NAME(ek_gemm_scratch)(rows(call->in_t[EK_LINEAR_INPUT_GRAD_DY]), w->dim[1], w->dim[0], threads);
}

static size_t input_grad_prepared(const ek_call *call) {
    const ek_tensor *w = call->in_t[EK_LINEAR_INPUT_GRAD_W];
    if (!worth_packing(rows(call->in_t[EK_LINEAR_INPUT_GRAD_DY]), w)) return 0;
    return EK_NAME(ek_gemm_packed_floats)(w->dim[1], w->dim[0]) * sizeof(float);
}

static void input_grad_prepare(const ek_call *call, void *to) {
    const ek_tensor *w = call->in_t[EK_LINEAR_INPUT_GRAD_W];
    ek_weights b = backward_weights(call);
    EK_NAME(ek_gemm_pack)(&b, w->dim[1], w->dim[0], to);
}

static void input_grad_run(const ek_call *call) {
    const ek_linear_input_grad_attrs *attrs = call->attrs;
    const ek_tensor *dy = call->in_t[EK_LINEAR_INPUT_GRAD_DY], *w = call->in_t[EK_LINEAR_INPUT_GRAD_W];
    ek_gemm g = {.m = rows(dy), .k = w->dim[1], .n = w->dim[0], .b = backward_weights(call), .packed = call->prepared};
    g.a = (ek_rows){.from.data = call->in[EK_LINEAR_INPUT_GRAD_DY], .ld = g.k};
    g.b.from = EK_NAME(ek_real_weight)(w, call->in[EK_LINEAR_INPUT_GRAD_W], call->in[EK_LINEAR_INPUT_GRAD_SCALE], call->scratch);
    g.finish = ek_backward_epilogue(call, attrs->act);
    EK_NAME(ek_gemm)(&g, call->pool, (char *)call->scratch + EK_NAME(ek_real_bytes)(w));
}

static size_t weight_grad_scratch(const ek_call *call, int threads) {
    const ek_tensor *x = call->in_t[EK_LINEAR_WEIGHT_GRAD_X], *dy = call->in_t[EK_LINEAR_WEIGHT_GRAD_DY];
    return EK_NAME(ek_real_bytes)(x) + EK_NAME(ek_outer_gemm_scratch)(rows(x), columns(x), columns(dy), threads);
}

static void weight_grad_run(const ek_call *call) {
    const ek_tensor *x = call->in_t[EK_LINEAR_WEIGHT_GRAD_X], *dy = call->in_t[EK_LINEAR_WEIGHT_GRAD_DY];
    ek_outer_gemm g = {.m = rows(x), .k = columns(x), .n = columns(dy), .dy = call->in[EK_LINEAR_WEIGHT_GRAD_DY]};
    g.a = (ek_rows){.ld = g.k};
    g.a.from = EK_NAME(ek_real_activation)(x, call->in[EK_LINEAR_WEIGHT_GRAD_X], call->in[EK_LINEAR_WEIGHT_GRAD_QUANT],
            call->scratch);
    g.dy_ld = g.dw_ld = g.n;
    g.dw = call->out[EK_LINEAR_WEIGHT_GRAD_DW], g.db = call->out[EK_LINEAR_WEIGHT_GRAD_DB];
    EK_NAME(ek_outer_gemm)(&g, call->pool, (char *)call->scratch + EK_NAME(ek_real_bytes)(x));
}

#if !defined(EK_M7) /* whose products sum in the gradient's own array */
static size_t sgd_scratch(const ek_call *call, int threads) {
    const ek_tensor *x = call->in_t[EK_LINEAR_SGD_X], *dy = call->in_t[EK_LINEAR_SGD_DY];
    return EK_NAME(ek_outer_gemm_scratch)(rows(x), columns(x), columns(dy), threads);
}

static void sgd_run(const ek_call *call) {
    const ek_linear_sgd_attrs *attrs = call->attrs;
    const ek_tensor *x = call->in_t[EK_LINEAR_SGD_X], *dy = call->in_t[EK_LINEAR_SGD_DY];
    ek_sgd_row step = {.velocity = call->in[EK_LINEAR_SGD_VELOCITY], .factor = call->in[EK_LINEAR_SGD_FACTOR],
            .offset = call->in[EK_LINEAR_SGD_OFFSET], .factor_step = 1, .offset_step = 1, .clip = 1.0f, .lr = attrs->lr,
            .momentum = attrs->momentum, .weight_decay = attrs->weight_decay, .nesterov = attrs->nesterov};
    ek_outer_gemm g = {.m = rows(x), .k = columns(x), .n = columns(dy), .dy = call->in[EK_LINEAR_SGD_DY], .step = &step};
    g.a = (ek_rows){.from.data = call->in[EK_LINEAR_SGD_X], .ld = g.k};
    g.dy_ld = g.dw_ld = g.n;
    g.dw = call->in[EK_LINEAR_SGD_PARAM], g.db = call->out[EK_LINEAR_SGD_DB];
    EK_NAME(ek_outer_gemm)(&g, call->pool, call->scratch);
}

const ek_kernel EK_NAME(ek_kernel_linear_sgd) = {sgd_scratch, NULL, NULL, sgd_run};
#endif

const ek_kernel EK_NAME(ek_kernel_linear) = {forward_scratch, forward_prepared, forward_prepare, forward_run};
const ek_kernel EK_NAME(ek_kernel_linear_input_grad) = {input_grad_scratch, input_grad_prepared, input_grad_prepare,
        input_grad_run};
const ek_kernel EK_NAME(ek_kernel_linear_weight_grad) = {weight_grad_scratch, NULL, NULL, weight_grad_run};
