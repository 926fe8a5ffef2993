#include "epilogue.h"

/* n bits from bit `at` of a row, and back. Slow when `at` does not start a byte: groups of channels can cause that. */
EK_INLINE uint32_t load_bits(const uint8_t *row, size_t at, int n) {
    uint32_t bits = 0;
    if (at % 8 == 0) {
        bits = row[at / 8];
        return n > 8 ? bits | (uint32_t)row[at / 8 + 1] << 8 : bits;
    }
    for (int i = 0; i < n; i++) bits |= (uint32_t)(row[(at + (size_t)i) / 8] >> (at + (size_t)i) % 8 & 1) << i;
    return bits;
}

EK_INLINE void store_bits(uint8_t *row, size_t at, uint32_t bits, int n) {
    if (at % 8 == 0) {
        row[at / 8] = (uint8_t)bits;
        if (n > 8) row[at / 8 + 1] = (uint8_t)(bits >> 8);
        return;
    }
    for (int i = 0; i < n; i++) {
        uint8_t *byte = row + (at + (size_t)i) / 8, one = (uint8_t)(1u << (at + (size_t)i) % 8);
        *byte = (uint8_t)(bits >> i & 1 ? *byte | one : *byte & ~one);
    }
}

EK_INLINE ek_vf hardsigmoid(ek_vf v) {
    return ek_at_most(ek_at_least(v + 3.0f, ek_splat(0.0f)), ek_splat(6.0f)) * (1.0f / 6.0f);
}

/* act'(saved), as Function.derivative. */
EK_INLINE ek_vf slope(ek_finish_kind kind, ek_vf saved, float high) {
    ek_vf zero = {0}, one = ek_splat(1.0f);
    if (kind == EK_SAVED_HARDSWISH) return ek_select(saved <= -3.0f, zero, ek_select(saved < 3.0f,
            saved * (1.0f / 3.0f) + 0.5f, one));
    if (kind == EK_SAVED_HARDSIGMOID) return ek_select((saved > 0.0f) & (saved < 1.0f), ek_splat(1.0f / 6.0f), zero);
    return ek_select((saved > 0.0f) & ~(saved >= high), one, zero);
}

/* What an instance is compiled for. With `extras` a bias, an addend, `pre` and stores past the caches are there or not; without them
 * there is a bias in forward alone, and `stream` says how to store. */
typedef struct {
    ek_finish_kind kind;
    int mask, extras, stream;
} variant;

EK_INLINE int streams(variant is, const ek_epilogue *e) { return EK_STREAMS && (is.extras ? e->stream : is.stream); }

EK_INLINE int has_bias(variant is, const ek_epilogue *e) {
    if (is.extras) return e->bias != NULL;
    return is.kind == EK_CLAMP || is.kind == EK_HARDSWISH || is.kind == EK_HARDSIGMOID;
}

/* n columns (1 … EK_STEP) at `at` of y. The variant and whether n is a whole step are constants of an instance. */
EK_INLINE void finish_step(variant is, const ek_epilogue *e, const float *acc, size_t at, const uint8_t *saved_bits,
        uint8_t *mask_bits, size_t column, int n) {
    ek_finish_kind kind = is.kind;
    int mask = is.mask, extras = is.extras;
    uint32_t bits = 0, saved = 0;
    if (kind == EK_SAVED_BITS) saved = load_bits(saved_bits, column, n);
    EK_UNROLL
    for (int i = 0; i < EK_STEP_VECTORS; i++) {
        int lane = i * EK_LANES;
        ek_vf v = ek_load(acc + lane);
        if (has_bias(is, e)) v += ek_read(e->bias + column, lane, n);
        if (extras && e->add) v += ek_read(e->add + at, lane, n);
        if (extras && e->pre) ek_write(e->pre + at, v, lane, n);
        if (kind == EK_CLAMP) {
            v = ek_between(v, ek_low_limit(e), ek_high_limit(e));
            if (mask) bits |= ek_bits_of((v > 0.0f) & ~(v >= e->high)) << lane;
        } else if (kind == EK_SAVED_BITS) {
            v = ek_select(ek_truth_of(saved >> lane), v, (ek_vf){0});
        } else if (kind == EK_HARDSWISH) {
            v *= hardsigmoid(v);
        } else if (kind == EK_HARDSIGMOID) {
            v = hardsigmoid(v);
        } else {
            v *= slope(kind, ek_read((const float *)e->saved + at, lane, n), e->high);
        }
        if (streams(is, e) && n == EK_STEP) ek_stream(e->y + at + lane, v);
        else ek_write(e->y + at, v, lane, n);
    }
    if (mask) store_bits(mask_bits, column, bits, n);
}

EK_INLINE void finish_row(variant is, const ek_epilogue *e, const float *acc, size_t row, size_t column, size_t columns) {
    const uint8_t *saved_bits = is.kind == EK_SAVED_BITS ? (const uint8_t *)e->saved + row * e->mask_bytes : NULL;
    uint8_t *mask_bits = is.mask ? e->mask + row * e->mask_bytes : NULL;
    size_t at = row * e->columns + column, j = 0;
    if (column % 8 == 0) { /* known to the instance, so that its masks are whole bytes */
        for (; j + EK_STEP <= columns; j += EK_STEP)
            finish_step(is, e, acc + j, at + j, saved_bits, mask_bits, (column / 8 + j / 8) * 8, EK_STEP);
    }
    for (; j < columns; j += EK_STEP) {
        int n = columns - j < EK_STEP ? (int)(columns - j) : EK_STEP;
        finish_step(is, e, acc + j, at + j, saved_bits, mask_bits, column + j, n);
    }
}

EK_INLINE void finish_as(variant is, const ek_epilogue *given, const float *acc, size_t ld, size_t rows, size_t row,
        size_t row_step, size_t column, size_t columns) {
    const ek_epilogue e = *given; /* a copy that no store can alias */
    for (size_t r = 0; r < rows; r++) finish_row(is, &e, acc + r * ld, row + r * row_step, column, columns);
}

void EK_NAME(ek_finish)(const ek_epilogue *e, const float *acc, size_t ld, size_t rows, size_t row, size_t row_step,
        size_t column, size_t columns) {
#define FINISH_AS(kind, mask, extras, stream) \
    finish_as((variant){kind, mask, extras, stream}, e, acc, ld, rows, row, row_step, column, columns)
#define FINISH(kind, mask) \
    if (extras) FINISH_AS(kind, mask, 1, 0); \
    else if (EK_STREAMS && e->stream) FINISH_AS(kind, mask, 0, 1); \
    else FINISH_AS(kind, mask, 0, 0)
    int extras = e->add || e->pre || (e->kind == EK_CLAMP && !e->bias);
    switch (e->kind) {
    case EK_CLAMP:
        if (e->mask) { FINISH(EK_CLAMP, 1); } else { FINISH(EK_CLAMP, 0); }
        break;
    case EK_SAVED_BITS: FINISH(EK_SAVED_BITS, 0); break;
    case EK_HARDSWISH: FINISH_AS(EK_HARDSWISH, 0, 1, 0); break;
    case EK_HARDSIGMOID: FINISH_AS(EK_HARDSIGMOID, 0, 1, 0); break;
    case EK_SAVED_CLAMP: FINISH_AS(EK_SAVED_CLAMP, 0, 1, 0); break;
    case EK_SAVED_HARDSWISH: FINISH_AS(EK_SAVED_HARDSWISH, 0, 1, 0); break;
    case EK_SAVED_HARDSIGMOID: FINISH_AS(EK_SAVED_HARDSIGMOID, 0, 1, 0); break;
    }
}
