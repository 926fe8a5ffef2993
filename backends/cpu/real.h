/* The operands of backward's products: float32, or int8 with what the integers stand for. */
#ifndef EK_REAL_H
#define EK_REAL_H

#include <stddef.h>

#include "../../firmware/core/kernel.h"
#include "simd.h"

/* Floats; or, where `data` is NULL, integers that stand for (whole - zero) · scale. Only kernels that take integers as they are get
 * any: the instruction set's real.c decides. */
typedef struct {
    const float *data;
    const int8_t *whole;
    const float *scale; /* of a weight, one an entry of its last axis; of an activation, one */
    int32_t zero;
} ek_real;

/* Scratch memory that the operand takes. */
size_t EK_NAME(ek_real_bytes)(const ek_tensor *t);

/* The operand; as floats, if they are not there, in `to`. */
ek_real EK_NAME(ek_real_weight)(const ek_tensor *t, const void *w, const float *scale, float *to);
ek_real EK_NAME(ek_real_activation)(const ek_tensor *t, const void *x, const float *quant, float *to);

/* The operand from element `at` on; its scales stay where they are. */
EK_INLINE ek_real ek_real_from(ek_real r, ptrdiff_t at) {
    return (ek_real){r.data ? r.data + at : NULL, r.whole ? r.whole + at : NULL, r.scale, r.zero};
}

#endif
