/* Ops that change state, each in one pass through memory: sgd_update, accumulate, fill; and the norm for clipping. */
#include <math.h>

#include "random.h"
#include "sgd.h"
#include "strides.h"
#include "tails.h"

typedef double vd __attribute__((vector_size(EK_LANES * 8)));

EK_INLINE ek_vf operand(const float *p, size_t step, size_t i, int n) {
    return step ? ek_load_n(p + i, n) : ek_splat(*p);
}

EK_INLINE void sgd_step(const ek_sgd_row *s, float *param, size_t i, int n) {
    ek_vf p = ek_load_n(param + i, n), g = ek_load_n(s->grad + i, n) * s->clip;
    if (s->factor) g *= operand(s->factor, s->factor_step, i, n);
    if (s->weight_decay != 0.0f) g += s->weight_decay * (s->offset ? p - operand(s->offset, s->offset_step, i, n) : p);
    if (s->velocity) {
        ek_vf v = s->momentum * ek_load_n(s->velocity + i, n) + g;
        ek_store_n(s->velocity + i, v, n);
        g = s->nesterov ? g + s->momentum * v : v;
    }
    ek_store_n(param + i, p - s->lr * g, n);
}

EK_INLINE void plain_steps(const ek_sgd_row *s, float *param, size_t n) {
    const float *grad = s->grad, *factor = s->factor;
    float clip = s->clip, lr = s->lr;
    for (size_t i = 0; i < n; i += EK_LANES)
        ek_store(param + i, ek_plain_step(ek_load(param + i), ek_load(grad + i), factor ? factor + i : NULL, clip, lr));
}

void EK_NAME(ek_sgd_steps)(const ek_sgd_row *s, float *param, size_t n) {
    size_t i = 0, whole = n / EK_LANES * EK_LANES;
    if (ek_is_plain(s)) plain_steps(s, param, whole), i = whole;
    for (; i < whole; i += EK_LANES) sgd_step(s, param, i, EK_LANES);
    if (i < n) sgd_step(s, param, i, (int)(n - i));
}

/* A row of integers in units of `scale`: their change is rounded up or down at random, so that its mean is right. */
typedef struct {
    void *param;
    int dtype;
    const float *scale;
    size_t scale_step;
    uint64_t key, first; /* of the random numbers: the stream, and the row's first element */
} whole_row;

EK_INLINE int64_t stored(const whole_row *w, size_t i) {
    return w->dtype == EK_I8 ? ((int8_t *)w->param)[i] : ((int32_t *)w->param)[i];
}

static __attribute__((minsize)) void whole_change(const whole_row *w, size_t i, float change) {
    float moved = floorf((float)(uint32_t)ek_draw(w->key, w->first + i) * 0x1p-24f - change);
    moved = moved < -0x1p30f ? -0x1p30f : moved > 0x1p30f ? 0x1p30f : moved;
    if (moved != moved) return; /* a gradient that is NaN */
    int64_t q = stored(w, i) + (int64_t)moved, most = w->dtype == EK_I8 ? 127 : INT32_MAX;
    q = q < -most ? -most : q > most ? most : q;
    if (w->dtype == EK_I8) ((int8_t *)w->param)[i] = (int8_t)q;
    else ((int32_t *)w->param)[i] = (int32_t)q;
}

/* As sgd_step, one element at a time: rounding takes longer than the rest. */
static __attribute__((minsize)) void whole_steps(const ek_sgd_row *s, const whole_row *w, size_t n) {
    _Pragma("clang loop vectorize(disable) unroll(disable)")
    for (size_t i = 0; i < n; i++) {
        float unit = w->scale[i * w->scale_step], g = s->grad[i] * s->clip;
        if (s->factor) g *= s->factor[i * s->factor_step];
        if (s->weight_decay != 0.0f) {
            float from = s->offset ? s->offset[i * s->offset_step] : 0.0f;
            g += s->weight_decay * ((float)stored(w, i) * unit - from);
        }
        if (s->velocity) {
            float v = s->momentum * s->velocity[i] + g;
            s->velocity[i] = v;
            g = s->nesterov ? g + s->momentum * v : v;
        }
        whole_change(w, i, s->lr * g / unit);
    }
}

/* The gradient's space; its operands are the parameter (of which it is a leading block), factor, offset and scale. */
static ek_space sgd_space(const ek_call *call) {
    const ek_tensor *param = call->in_t[EK_SGD_UPDATE_PARAM], *grad = call->in_t[EK_SGD_UPDATE_GRAD];
    const ek_tensor *factor = call->in_t[EK_SGD_UPDATE_FACTOR], *offset = call->in_t[EK_SGD_UPDATE_OFFSET];
    const ek_tensor *scale = call->in_t[EK_SGD_UPDATE_SCALE];
    ek_space s = {0};
    size_t inner[EK_MAX_RANK], size = 1;
    for (int i = param->rank - 1; i >= 0; i--) inner[i] = size, size *= param->dim[i];
    if (grad->rank == 0) ek_space_add(&s, 1, (size_t[EK_OPERANDS]){0});
    for (int i = 0; i < grad->rank; i++) {
        size_t stride[EK_OPERANDS] = {inner[i]};
        if (factor) stride[1] = ek_broadcast_stride(factor, grad->rank, i);
        if (offset) stride[2] = ek_broadcast_stride(offset, grad->rank, i);
        if (scale) stride[3] = ek_broadcast_stride(scale, grad->rank, i);
        ek_space_add(&s, grad->dim[i], stride);
    }
    if (s.stride[0][s.rank - 1] > 1) { /* a block of one column: rows of one */
        s.dim[s.rank] = s.stride[0][s.rank] = 1;
        s.rank++;
    }
    return s;
}

static void sgd_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_sgd_update_attrs *a = call->attrs;
    const float *grad = call->in[EK_SGD_UPDATE_GRAD], *clip = call->in[EK_SGD_UPDATE_CLIP];
    const float *factor = call->in[EK_SGD_UPDATE_FACTOR], *offset = call->in[EK_SGD_UPDATE_OFFSET];
    const float *scale = call->in[EK_SGD_UPDATE_SCALE];
    float *velocity = call->in[EK_SGD_UPDATE_VELOCITY];
    char *param = call->in[EK_SGD_UPDATE_PARAM];
    size_t first = (size_t)a->start * ek_columns(call->in_t[EK_SGD_UPDATE_PARAM]); /* element of the block */
    ek_space space = sgd_space(call);
    ek_sgd_row s = {.clip = clip ? *clip : 1.0f, .lr = a->lr, .momentum = a->momentum, .weight_decay = a->weight_decay};
    s.nesterov = a->nesterov;
    s.factor_step = space.stride[1][space.rank - 1], s.offset_step = space.stride[2][space.rank - 1];
    ek_range r = ek_share(ek_elements(call->in_t[EK_SGD_UPDATE_GRAD]), 64, index, count);
    ek_walk w = ek_walk_from(&space, r.begin);
    whole_row whole = {.dtype = call->in_t[EK_SGD_UPDATE_PARAM]->dtype, .scale_step = space.stride[3][space.rank - 1]};
    if (scale) whole.key = ek_random_key(call->in[EK_SGD_UPDATE_STEP], a->stream);
    for (size_t at = r.begin; at < r.end;) {
        size_t n = ek_walk_row(&space, &w, r.end - at);
        void *row = param + (first + w.at[0]) * (whole.dtype == EK_I8 ? 1 : 4);
        s.grad = grad + at, s.velocity = velocity ? velocity + at : NULL;
        s.factor = factor ? factor + w.at[1] : NULL, s.offset = offset ? offset + w.at[2] : NULL;
        if (scale) {
            whole.param = row, whole.scale = scale + w.at[3], whole.first = (size_t)a->start * ek_columns(call->in_t[EK_SGD_UPDATE_GRAD]) + at;
            whole_steps(&s, &whole, n);
        } else {
            EK_NAME(ek_sgd_steps)(&s, row, n);
        }
        ek_walk_on(&space, &w, n);
        at += n;
    }
}

static void sgd_update(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_SGD_UPDATE_GRAD]), sgd_part, (void *)call);
}

static void accumulate_part(void *context, int index, int count) {
    const ek_call *call = context;
    float *total = call->in[EK_ACCUMULATE_TOTAL];
    const float *value = call->in[EK_ACCUMULATE_VALUE];
    ek_range r = ek_share(ek_elements(call->in_t[EK_ACCUMULATE_TOTAL]), 64, index, count);
    size_t i = r.begin;
    for (; i + EK_LANES <= r.end; i += EK_LANES) ek_store(total + i, ek_load(total + i) + ek_load(value + i));
    for (; i < r.end; i++) total[i] += value[i];
}

static void accumulate(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_ACCUMULATE_TOTAL]), accumulate_part, (void *)call);
}

static void fill_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_fill_attrs *a = call->attrs;
    float *target = call->in[EK_FILL_TARGET];
    ek_range r = ek_share(ek_elements(call->in_t[EK_FILL_TARGET]), 64, index, count);
    for (size_t i = r.begin; i < r.end; i++) target[i] = a->value;
}

static void fill(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_FILL_TARGET]), fill_part, (void *)call);
}

/* The sum of (grad * factor)^2 over n neighbours. */
static double squares(const float *grad, const float *factor, size_t factor_step, size_t n) {
    vd sum = {0};
    for (size_t i = 0; i < n; i += EK_LANES) {
        int here = n - i < EK_LANES ? (int)(n - i) : EK_LANES;
        ek_vf g = ek_load_n(grad + i, here);
        if (factor) g *= operand(factor, factor_step, i, here);
        vd wide = __builtin_convertvector(g, vd);
        sum += wide * wide;
    }
    double total = 0.0;
    for (int i = 0; i < EK_LANES; i++) total += sum[i];
    return total;
}

static void sum_squares_part(void *context, int index, int count) {
    const ek_call *call = context;
    const float *grad = call->in[EK_SUM_SQUARES_GRAD], *factor = call->in[EK_SUM_SQUARES_FACTOR];
    const ek_tensor *const operands[EK_OPERANDS] = {call->in_t[EK_SUM_SQUARES_FACTOR]};
    ek_space space = ek_broadcast_space(call->in_t[EK_SUM_SQUARES_GRAD], operands);
    ek_range r = ek_share(ek_elements(call->in_t[EK_SUM_SQUARES_GRAD]), 64, index, count);
    ek_walk w = ek_walk_from(&space, r.begin);
    double total = 0.0;
    for (size_t at = r.begin; at < r.end;) {
        size_t n = ek_walk_row(&space, &w, r.end - at);
        total += squares(grad + at, factor ? factor + w.at[0] : NULL, space.stride[0][space.rank - 1], n);
        ek_walk_on(&space, &w, n);
        at += n;
    }
    ((double *)call->scratch)[index] = total;
}

static size_t sum_squares_scratch(const ek_call *call, int threads) {
    (void)call;
    return (size_t)threads * sizeof(double);
}

static void sum_squares(const ek_call *call) {
    const float *previous = call->in[EK_SUM_SQUARES_PREVIOUS];
    double total = previous ? *previous : 0.0, *partial = call->scratch;
    size_t n = ek_elements(call->in_t[EK_SUM_SQUARES_GRAD]);
    ek_parallel(call->pool, n, sum_squares_part, (void *)call);
    for (int i = 0; i < ek_threads_for(call->pool, n); i++) total += partial[i];
    *(float *)call->out[EK_SUM_SQUARES_TOTAL] = (float)total;
}

/* As torch.nn.utils.clip_grad_norm_: a NaN norm makes a NaN coefficient. */
static void clip_coefficient(const ek_call *call) {
    const ek_clip_coefficient_attrs *a = call->attrs;
    float coefficient = a->max_norm / (sqrtf(*(const float *)call->in[EK_CLIP_COEFFICIENT_TOTAL]) + 1e-6f);
    *(float *)call->out[EK_CLIP_COEFFICIENT_COEFFICIENT] = coefficient > 1.0f ? 1.0f : coefficient;
}

const ek_kernel EK_NAME(ek_kernel_sgd_update) = {.run = sgd_update};
const ek_kernel EK_NAME(ek_kernel_accumulate) = {.run = accumulate};
const ek_kernel EK_NAME(ek_kernel_fill) = {.run = fill};
const ek_kernel EK_NAME(ek_kernel_sum_squares) = {.scratch_bytes = sum_squares_scratch, .run = sum_squares};
const ek_kernel EK_NAME(ek_kernel_clip_coefficient) = {.run = clip_coefficient};
