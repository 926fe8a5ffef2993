/* Walking over an array whose operands have strides of their own: broadcast operands (stride 0), permuted ones,
 * blocks of larger arrays. */
#ifndef EK_STRIDES_H
#define EK_STRIDES_H

#include "parallel.h"

enum { EK_OPERANDS = 4 };

/* The axes to walk, outermost first, with the operands' strides in elements. Axes of length 1 are left out and axes
 * that all operands pass through evenly are one, so an array that nothing is broadcast over is a single row. */
typedef struct {
    int rank;
    size_t dim[EK_MAX_RANK], stride[EK_OPERANDS][EK_MAX_RANK];
} ek_space;

/* Add the next inner axis. */
static inline void ek_space_add(ek_space *s, size_t dim, const size_t stride[EK_OPERANDS]) {
    if (dim == 1 && s->rank > 0) return;
    int last = s->rank - 1, joins = s->rank > 0;
    for (int k = 0; k < EK_OPERANDS && joins; k++) joins = s->dim[last] == 1 || s->stride[k][last] == dim * stride[k];
    int at = joins ? last : s->rank++;
    s->dim[at] = joins ? s->dim[at] * dim : dim;
    for (int k = 0; k < EK_OPERANDS; k++) s->stride[k][at] = stride[k];
}

/* The stride of t's axis that broadcasting lines up with axis `axis` of an array of `rank` axes. */
static inline size_t ek_broadcast_stride(const ek_tensor *t, int rank, int axis) {
    int own = axis - (rank - t->rank);
    if (own < 0 || t->dim[own] == 1) return 0;
    size_t stride = 1;
    for (int i = own + 1; i < t->rank; i++) stride *= t->dim[i];
    return stride;
}

/* The space of y with up to EK_OPERANDS operands broadcast to it; absent ones are NULL. */
static inline ek_space ek_broadcast_space(const ek_tensor *y, const ek_tensor *const operands[EK_OPERANDS]) {
    ek_space s = {0};
    size_t none[EK_OPERANDS] = {0};
    if (y->rank == 0) ek_space_add(&s, 1, none);
    for (int i = 0; i < y->rank; i++) {
        size_t stride[EK_OPERANDS] = {0};
        for (int k = 0; k < EK_OPERANDS; k++)
            if (operands[k]) stride[k] = ek_broadcast_stride(operands[k], y->rank, i);
        ek_space_add(&s, y->dim[i], stride);
    }
    return s;
}

/* A place in a space: the operands' offsets, and how much of the innermost row is left. */
typedef struct {
    size_t index[EK_MAX_RANK], at[EK_OPERANDS];
} ek_walk;

static inline ek_walk ek_walk_from(const ek_space *s, size_t flat) {
    ek_walk w = {0};
    for (int i = s->rank - 1; i >= 0; i--) {
        w.index[i] = flat % s->dim[i];
        flat /= s->dim[i];
        for (int k = 0; k < EK_OPERANDS; k++) w.at[k] += w.index[i] * s->stride[k][i];
    }
    return w;
}

/* Elements from here to the end of the row, `limit` at most. */
static inline size_t ek_walk_row(const ek_space *s, const ek_walk *w, size_t limit) {
    size_t left = s->dim[s->rank - 1] - w->index[s->rank - 1];
    return left < limit ? left : limit;
}

/* Go n elements on, which is to the end of the row at most. */
static inline void ek_walk_on(const ek_space *s, ek_walk *w, size_t n) {
    size_t step = n;
    for (int i = s->rank - 1; i >= 0; i--, step = 1) {
        w->index[i] += step;
        for (int k = 0; k < EK_OPERANDS; k++) w->at[k] += step * s->stride[k][i];
        if (w->index[i] < s->dim[i]) return;
        for (int k = 0; k < EK_OPERANDS; k++) w->at[k] -= s->dim[i] * s->stride[k][i];
        w->index[i] = 0;
    }
}

#endif
