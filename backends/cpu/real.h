/* The numbers that int8 operands stand for, as the float32 arrays that the products of backward read. */
#ifndef EK_REAL_H
#define EK_REAL_H

#include <stddef.h>

#include "../../firmware/core/kernel.h"
#include "simd.h"

/* Scratch memory that they take; 0 for a float32 operand, which is its own copy. */
size_t EK_NAME(ek_real_bytes)(const ek_tensor *t);

/* The operand, or what it stands for, written to `to`. The scales of a weight are over its last axis. */
const float *EK_NAME(ek_real_weight)(const ek_tensor *t, const void *w, const float *scale, float *to);
const float *EK_NAME(ek_real_activation)(const ek_tensor *t, const void *x, const float *quant, float *to);

#endif
