/* What follows a matrix product or a convolution while its result is still in registers or the nearest cache:
 *   forward:  y = act(acc + bias + residual), and the mask (where act' is 1) or act's argument for backward;
 *   backward: dx = (acc + addend) * act'(saved). */
#ifndef EK_EPILOGUE_H
#define EK_EPILOGUE_H

#include <math.h>
#include <stddef.h>

#include "../../firmware/core/kernel.h"
#include "simd.h"

/* Columns of one step: whole vectors and whole bytes of a mask. */
enum { EK_STEP = EK_LANES < 8 ? 8 : EK_LANES, EK_STEP_VECTORS = EK_STEP / EK_LANES };

typedef struct {
    ek_vf v[EK_STEP_VECTORS];
} ek_step;

typedef enum { EK_CLAMP, EK_HARDSWISH, EK_HARDSIGMOID, EK_SAVED_BITS, EK_SAVED_CLAMP, EK_SAVED_HARDSWISH,
        EK_SAVED_HARDSIGMOID } ek_finish_kind;

typedef struct {
    ek_finish_kind kind;
    float low, high;     /* of the clamps; NaN: no limit */
    size_t columns;      /* of a row of y, add, pre, saved */
    size_t mask_bytes;   /* of a row of mask, saved bits */
    const float *bias, *add;
    const void *saved;
    float *y, *pre;
    uint8_t *mask;
    int stream; /* whether y goes past the caches */
} ek_epilogue;

/* A result of this many bytes is gone from the caches before it is read again. Where it is stored past them, the lines are not
 * read from DRAM first: 30 % more bandwidth. */
enum { EK_STREAM_BYTES = 8 << 20 };

EK_INLINE int ek_streams(const ek_tensor *y) {
    return EK_STREAMS && y->bytes >= EK_STREAM_BYTES && y->dim[y->rank - 1] % EK_LANES == 0; /* whole, aligned vectors */
}

EK_INLINE void ek_epilogue_limits(ek_epilogue *e, int32_t act) {
    e->low = act == EK_FN_RELU || act == EK_FN_RELU6 ? 0.0f : NAN;
    e->high = act == EK_FN_RELU6 ? 6.0f : NAN;
}

/* The clamp's limits for ek_between: infinite where there are none. */
EK_INLINE ek_vf ek_low_limit(const ek_epilogue *e) { return ek_splat(e->low == e->low ? e->low : -INFINITY); }
EK_INLINE ek_vf ek_high_limit(const ek_epilogue *e) { return ek_splat(e->high == e->high ? e->high : INFINITY); }

EK_INLINE ek_epilogue ek_forward_epilogue(const ek_call *call, int32_t act) {
    const ek_tensor *y = call->out_t[EK_LINEAR_Y];
    ek_epilogue e = {.columns = y->dim[y->rank - 1], .bias = call->in[EK_LINEAR_BIAS],
            .add = call->in[EK_LINEAR_RESIDUAL]};
    e.kind = act == EK_FN_HARDSWISH ? EK_HARDSWISH : act == EK_FN_HARDSIGMOID ? EK_HARDSIGMOID : EK_CLAMP;
    e.mask_bytes = (e.columns + 7) / 8;
    e.y = call->out[EK_LINEAR_Y], e.mask = call->out[EK_LINEAR_MASK], e.pre = call->out[EK_LINEAR_PRE];
    e.stream = ek_streams(y);
    ek_epilogue_limits(&e, act);
    return e;
}

EK_INLINE ek_epilogue ek_backward_epilogue(const ek_call *call, int32_t act) {
    const ek_tensor *dx = call->out_t[EK_LINEAR_INPUT_GRAD_DX], *saved = call->in_t[EK_LINEAR_INPUT_GRAD_SAVED];
    ek_epilogue e = {.columns = dx->dim[dx->rank - 1], .add = call->in[EK_LINEAR_INPUT_GRAD_ADDEND],
            .y = call->out[EK_LINEAR_INPUT_GRAD_DX]};
    e.mask_bytes = (e.columns + 7) / 8;
    e.saved = call->in[EK_LINEAR_INPUT_GRAD_SAVED];
    e.stream = ek_streams(dx);
    ek_epilogue_limits(&e, e.saved ? act : EK_FN_IDENTITY);
    if (!e.saved) e.kind = EK_CLAMP;
    else if (saved->dtype == EK_BITS) e.kind = EK_SAVED_BITS;
    else if (act == EK_FN_HARDSWISH) e.kind = EK_SAVED_HARDSWISH;
    else if (act == EK_FN_HARDSIGMOID) e.kind = EK_SAVED_HARDSIGMOID;
    else e.kind = EK_SAVED_CLAMP;
    return e;
}

EK_INLINE ek_vf ek_read(const float *p, int lane, int n) {
    if (n >= lane + EK_LANES) return ek_load(p + lane);
    return n > lane ? ek_load_part(p + lane, n - lane) : (ek_vf){0};
}

EK_INLINE void ek_write(float *p, ek_vf v, int lane, int n) {
    if (n >= lane + EK_LANES) ek_store(p + lane, v);
    else if (n > lane) ek_store_part(p + lane, v, n - lane);
}

/* At the end of a thread's part. */
EK_INLINE void ek_finished(const ek_epilogue *e) {
    if (e->stream) ek_stream_end();
}

/* Finish `columns` columns from `column` of the rows row, row + row_step, … (`rows` of them). Their sums are at acc,
 * `ld` floats from row to row, in whole steps. */
void EK_NAME(ek_finish)(const ek_epilogue *e, const float *acc, size_t ld, size_t rows, size_t row, size_t row_step,
        size_t column,
                        size_t columns);

#endif
