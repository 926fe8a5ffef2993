/* Elementwise functions of one array: unary, unary_grad, apply_mask, affine. */
#include "bits.h"
#include "vecmath.h"

EK_INLINE void map(int fn, const float *x, float *y, size_t n) {
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) ek_store(y + i, ek_apply(fn, ek_load(x + i)));
    if (i < n) ek_store_part(y + i, ek_apply(fn, ek_load_part(x + i, (int)(n - i))), (int)(n - i));
}

/* y = fn(x) for n elements. */
static void map_any(int fn, const float *x, float *y, size_t n) {
    switch (fn) {
#define CASE(NAME) case EK_FN_##NAME: map(EK_FN_##NAME, x, y, n); break;
        EK_FUNCTIONS(CASE)
#undef CASE
    }
}

EK_INLINE void map_masked(int fn, const float *x, float *y, uint8_t *mask, size_t n) {
    for (size_t i = 0; i < n; i += EK_GROUP) {
        ek_group g = ek_load_group(x + i, n - i);
        uint32_t bits = 0;
        EK_UNROLL
        for (int k = 0; k < EK_GROUP_VECTORS; k++) {
            g.v[k] = ek_apply(fn, g.v[k]);
            bits |= ek_bits_of(ek_mask_of(fn, g.v[k])) << (k * EK_LANES);
        }
        ek_store_group(y + i, g, n - i);
        ek_store_group_bits(mask + i / 8, bits, n - i);
    }
}

/* y = fn(x) and the mask, of one row. */
static void map_masked_any(int fn, const float *x, float *y, uint8_t *mask, size_t n) {
    if (fn == EK_FN_RELU6) map_masked(EK_FN_RELU6, x, y, mask, n);
    else map_masked(EK_FN_RELU, x, y, mask, n);
}

static void unary_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_unary_attrs *a = call->attrs;
    const float *x = call->in[EK_UNARY_X];
    float *y = call->out[EK_UNARY_Y];
    ek_range r = ek_share(ek_elements(call->in_t[EK_UNARY_X]), 64, index, count);
    map_any(a->fn, x + r.begin, y + r.begin, r.end - r.begin);
}

static void unary_masked_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_unary_attrs *a = call->attrs;
    const float *x = call->in[EK_UNARY_X];
    float *y = call->out[EK_UNARY_Y];
    ek_bit_rows all = ek_rows_of(call->in_t[EK_UNARY_X]);
    ek_bit_part part = ek_bit_share(all, index, count);
    for (size_t r = part.rows.begin; r < part.rows.end; r++) {
        size_t at = r * all.columns + part.columns.begin;
        uint8_t *mask = (uint8_t *)call->out[EK_UNARY_MASK] + r * all.row_bytes + part.columns.begin / 8;
        map_masked_any(a->fn, x + at, y + at, mask, part.columns.end - part.columns.begin);
    }
}

static void unary(const ek_call *call) {
    ek_work *part = call->out[EK_UNARY_MASK] ? unary_masked_part : unary_part;
    ek_parallel(call->pool, ek_elements(call->in_t[EK_UNARY_X]), part, (void *)call);
}

EK_INLINE void derive(int fn, const float *dy, const float *saved, float *dx, size_t n) {
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) ek_store(dx + i, ek_derive(fn, ek_load(dy + i), ek_load(saved + i)));
    int rest = (int)(n - i);
    if (rest) ek_store_part(dx + i, ek_derive(fn, ek_load_part(dy + i, rest), ek_load_part(saved + i, rest)), rest);
}

static void unary_grad_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_unary_grad_attrs *a = call->attrs;
    ek_range r = ek_share(ek_elements(call->in_t[EK_UNARY_GRAD_DY]), 64, index, count);
    const float *dy = (const float *)call->in[EK_UNARY_GRAD_DY] + r.begin;
    const float *saved = (const float *)call->in[EK_UNARY_GRAD_SAVED] + r.begin;
    float *dx = (float *)call->out[EK_UNARY_GRAD_DX] + r.begin;
    size_t n = r.end - r.begin;
    switch (a->fn) {
#define CASE(NAME) case EK_FN_##NAME: derive(EK_FN_##NAME, dy, saved, dx, n); break;
        EK_FUNCTIONS(CASE)
#undef CASE
    }
}

static void unary_grad(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_UNARY_GRAD_DY]), unary_grad_part, (void *)call);
}

static void apply_mask_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_apply_mask_attrs *a = call->attrs;
    ek_bit_rows all = ek_rows_of(call->in_t[EK_APPLY_MASK_X]);
    ek_bit_part part = ek_bit_share(all, index, count);
    for (size_t r = part.rows.begin; r < part.rows.end; r++) {
        const float *x = (const float *)call->in[EK_APPLY_MASK_X] + r * all.columns;
        const uint8_t *mask = (const uint8_t *)call->in[EK_APPLY_MASK_MASK] + r * all.row_bytes;
        float *y = (float *)call->out[EK_APPLY_MASK_Y] + r * all.columns;
        for (size_t i = part.columns.begin; i < part.columns.end; i += EK_GROUP) {
            size_t n = part.columns.end - i;
            ek_store_group(y + i, ek_keep(ek_load_group(x + i, n), ek_load_group_bits(mask + i / 8, n), a->scale), n);
        }
    }
}

static void apply_mask(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_APPLY_MASK_X]), apply_mask_part, (void *)call);
}

/* to = x * scale + shift, of one row. */
static void scale_row(const float *x, const float *scale, const float *shift, float *to, size_t n) {
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) ek_store(to + i, ek_load(x + i) * ek_load(scale + i) + ek_load(shift + i));
    int rest = (int)(n - i);
    if (rest) {
        ek_vf v = ek_load_part(x + i, rest) * ek_load_part(scale + i, rest) + ek_load_part(shift + i, rest);
        ek_store_part(to + i, v, rest);
    }
}

/* A row at a time, so that the activation finds it in the nearest cache. */
static void affine_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_affine_attrs *a = call->attrs;
    const float *x = call->in[EK_AFFINE_X];
    size_t columns = ek_columns(call->in_t[EK_AFFINE_X]);
    ek_range r = ek_share(ek_elements(call->in_t[EK_AFFINE_X]) / columns, 1, index, count);
    for (size_t row = r.begin; row < r.end; row++) {
        size_t at = row * columns;
        float *y = (float *)call->out[EK_AFFINE_Y] + at;
        float *pre = call->out[EK_AFFINE_PRE] ? (float *)call->out[EK_AFFINE_PRE] + at : y;
        uint8_t *mask = call->out[EK_AFFINE_MASK];
        scale_row(x + at, call->in[EK_AFFINE_SCALE], call->in[EK_AFFINE_SHIFT], pre, columns);
        if (mask) map_masked_any(a->act, pre, y, mask + row * ((columns + 7) / 8), columns);
        else if (a->act != EK_FN_IDENTITY || pre != y) map_any(a->act, pre, y, columns);
    }
}

static void affine(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->in_t[EK_AFFINE_X]), affine_part, (void *)call);
}

const ek_kernel EK_NAME(ek_kernel_unary) = {.run = unary};
const ek_kernel EK_NAME(ek_kernel_unary_grad) = {.run = unary_grad};
const ek_kernel EK_NAME(ek_kernel_apply_mask) = {.run = apply_mask};
const ek_kernel EK_NAME(ek_kernel_affine) = {.run = affine};
