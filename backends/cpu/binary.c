/* Arithmetic of two arrays with NumPy's broadcasting. Every row of the joined space (strides.h) is one of three
 * loops: both operands along, or one of them standing still. */
#include "simd.h"
#include "strides.h"

EK_INLINE ek_vf combine(int fn, ek_vf a, ek_vf b) {
    switch (fn) {
    case EK_BINARY_ADD: return a + b;
    case EK_BINARY_SUB: return a - b;
    case EK_BINARY_MUL: return a * b;
    case EK_BINARY_DIV: return a / b;
    case EK_BINARY_MAXIMUM: return ek_select((b > a) | (b != b), b, a); /* a NaN wins */
    default: return ek_select((b < a) | (b != b), b, a);
    }
}

/* Steps are 1 or 0, and constants where this is called. */
EK_INLINE void combine_row(int fn, const float *a, size_t a_step, const float *b, size_t b_step, float *y, size_t n) {
    size_t i = 0;
    ek_vf one_a = ek_splat(a[0]), one_b = ek_splat(b[0]);
    for (; i + EK_LANES <= n; i += EK_LANES)
        ek_store(y + i, combine(fn, a_step ? ek_load(a + i) : one_a, b_step ? ek_load(b + i) : one_b));
    int rest = (int)(n - i);
    if (!rest) return;
    ek_vf last_a = a_step ? ek_load_part(a + i, rest) : one_a, last_b = b_step ? ek_load_part(b + i, rest) : one_b;
    ek_store_part(y + i, combine(fn, last_a, last_b), rest);
}

EK_INLINE void combine_steps(int fn, const float *a, size_t a_step, const float *b, size_t b_step, float *y, size_t n) {
    if (a_step && b_step) combine_row(fn, a, 1, b, 1, y, n);
    else if (a_step) combine_row(fn, a, 1, b, 0, y, n);
    else combine_row(fn, a, 0, b, b_step, y, n);
}

static void combine_any(int fn, const float *a, size_t a_step, const float *b, size_t b_step, float *y, size_t n) {
    switch (fn) {
#define CASE(NAME) case EK_BINARY_##NAME: combine_steps(EK_BINARY_##NAME, a, a_step, b, b_step, y, n); break;
        CASE(ADD) CASE(SUB) CASE(MUL) CASE(DIV) CASE(MAXIMUM) CASE(MINIMUM)
#undef CASE
    }
}

static void binary_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_binary_attrs *attrs = call->attrs;
    const ek_tensor *const operands[EK_OPERANDS] = {call->in_t[EK_BINARY_A], call->in_t[EK_BINARY_B]};
    ek_space s = ek_broadcast_space(call->out_t[EK_BINARY_Y], operands);
    size_t a_step = s.stride[0][s.rank - 1], b_step = s.stride[1][s.rank - 1];
    const float *a = call->in[EK_BINARY_A], *b = call->in[EK_BINARY_B];
    float *y = call->out[EK_BINARY_Y];
    ek_range r = ek_share(ek_elements(call->out_t[EK_BINARY_Y]), 64, index, count);
    ek_walk w = ek_walk_from(&s, r.begin);
    for (size_t at = r.begin; at < r.end;) {
        size_t n = ek_walk_row(&s, &w, r.end - at);
        combine_any(attrs->fn, a + w.at[0], a_step, b + w.at[1], b_step, y + at, n);
        ek_walk_on(&s, &w, n);
        at += n;
    }
}

static void binary(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->out_t[EK_BINARY_Y]), binary_part, (void *)call);
}

const ek_kernel EK_NAME(ek_kernel_binary) = {.run = binary};
