/* What an SGD step does to a row of a parameter, for the ops that make steps. */
#ifndef EK_SGD_H
#define EK_SGD_H

#include <stddef.h>

#include "simd.h"

/* A vector operand that is absent is NULL. */
typedef struct {
    const float *grad, *factor, *offset;
    float *velocity;
    size_t factor_step, offset_step; /* 1, or 0 where the row has one element of it */
    float clip, lr, momentum, weight_decay;
    int nesterov;
} ek_sgd_row;

/* Whether a step takes nothing but the gradient and a factor for each element. */
EK_INLINE int ek_is_plain(const ek_sgd_row *s) {
    return !s->velocity && s->weight_decay == 0.0f && (!s->factor || s->factor_step == 1);
}

/* A plain step of a vector; `factor`: where its elements' lie, or NULL. */
EK_INLINE ek_vf ek_plain_step(ek_vf param, ek_vf grad, const float *factor, float clip, float lr) {
    grad *= clip;
    if (factor) grad *= ek_load(factor);
    return param - lr * grad;
}

/* One step of n neighbours. */
void EK_NAME(ek_sgd_steps)(const ek_sgd_row *s, float *param, size_t n);

#endif
