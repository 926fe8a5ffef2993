/* Ops that move elements, of four bytes or of one: expand, slice, unslice, concat. */
#include <string.h>

#include "simd.h"
#include "strides.h"

static size_t item_of(const ek_tensor *t) { return t->dtype == EK_I8 ? 1 : 4; }

static void expand_part(void *context, int index, int count) {
    const ek_call *call = context;
    const ek_tensor *const operands[EK_OPERANDS] = {call->in_t[EK_EXPAND_X]};
    ek_space s = ek_broadcast_space(call->out_t[EK_EXPAND_Y], operands);
    size_t item = item_of(call->in_t[EK_EXPAND_X]);
    const char *x = call->in[EK_EXPAND_X];
    char *y = call->out[EK_EXPAND_Y];
    ek_range r = ek_share(ek_elements(call->out_t[EK_EXPAND_Y]), 64, index, count);
    ek_walk w = ek_walk_from(&s, r.begin);
    for (size_t at = r.begin; at < r.end;) {
        size_t n = ek_walk_row(&s, &w, r.end - at);
        if (s.stride[0][s.rank - 1]) {
            memmove(y + at * item, x + w.at[0] * item, n * item);
        } else if (item == 1) {
            memset(y + at, x[w.at[0]], n);
        } else {
            for (size_t i = 0; i < n; i++) ((uint32_t *)(void *)y)[at + i] = ((const uint32_t *)(const void *)x)[w.at[0]];
        }
        ek_walk_on(&s, &w, n);
        at += n;
    }
}

static void expand(const ek_call *call) {
    ek_parallel(call->pool, ek_elements(call->out_t[EK_EXPAND_Y]), expand_part, (void *)call);
}

enum { LEAST_PIECE = 1024 }; /* bytes */

/* Copies between two arrays seen as [outer, rows, row]: n rows from every outer index. All in bytes. */
typedef struct {
    const char *from;
    char *to;
    size_t outer, n, row;
    size_t from_step, to_step;   /* between two rows */
    size_t from_outer, to_outer; /* between two outer indices */
} copies;

EK_INLINE void copy_outer(const copies *c, size_t outer, size_t row) {
    const char *from = c->from + outer * c->from_outer;
    char *to = c->to + outer * c->to_outer;
    for (size_t i = 0; i < c->n; i++) memmove(to + i * c->to_step, from + i * c->from_step, row);
}

static void copy_part(void *context, int index, int count) {
    const copies *c = context;
    ek_range r = ek_share(c->outer, 1, index, count);
    for (size_t o = r.begin; o < r.end; o++) {
        if (c->row == 4) copy_outer(c, o, 4);
        else copy_outer(c, o, c->row);
    }
}

static void copy(ek_pool *pool, copies c) {
    if (c.from_step == c.row && c.to_step == c.row) c.row *= c.n, c.n = 1;
    size_t piece = c.row & -c.row; /* one long row is shared out too */
    if (c.outer == 1 && c.n == 1 && piece >= LEAST_PIECE) c.outer = c.row / piece, c.row = c.from_outer = c.to_outer = piece;
    ek_parallel(pool, c.outer * c.n * c.row / 4, copy_part, &c);
}

/* The product of the axes before `axis`; and the bytes of those after it. */
static size_t before(const ek_tensor *t, int axis) {
    size_t n = 1;
    for (int i = 0; i < axis; i++) n *= t->dim[i];
    return n;
}

static size_t after(const ek_tensor *t, int axis) {
    size_t n = item_of(t);
    for (int i = axis + 1; i < t->rank; i++) n *= t->dim[i];
    return n;
}

static void slice(const ek_call *call) {
    const ek_slice_attrs *a = call->attrs;
    const ek_tensor *t = call->in_t[EK_SLICE_X];
    size_t row = after(t, a->axis);
    copies c = {.outer = before(t, a->axis), .n = (size_t)a->length, .row = row};
    c.from = (const char *)call->in[EK_SLICE_X] + (size_t)a->start * row, c.to = call->out[EK_SLICE_Y];
    c.from_step = (size_t)a->step * row, c.from_outer = t->dim[a->axis] * row;
    c.to_step = row, c.to_outer = (size_t)a->length * row;
    copy(call->pool, c);
}

static void unslice(const ek_call *call) {
    const ek_unslice_attrs *a = call->attrs;
    const ek_tensor *t = call->in_t[EK_UNSLICE_X];
    size_t row = after(t, a->axis), start = (size_t)a->start * row;
    memset(call->out[EK_UNSLICE_Y], 0, call->out_t[EK_UNSLICE_Y]->bytes);
    copies c = {.outer = before(t, a->axis), .n = t->dim[a->axis], .row = row};
    c.from = call->in[EK_UNSLICE_X], c.to = (char *)call->out[EK_UNSLICE_Y] + start;
    c.from_step = row, c.from_outer = t->dim[a->axis] * row;
    c.to_step = (size_t)a->step * row, c.to_outer = (size_t)a->size * row;
    copy(call->pool, c);
}

static void concat(const ek_call *call) {
    const ek_concat_attrs *a = call->attrs;
    const ek_tensor *y = call->out_t[EK_CONCAT_Y];
    size_t row = after(y, a->axis), start = 0;
    for (int i = 0; i < EK_MAX_IN; i++) {
        const ek_tensor *t = call->in_t[i];
        if (!t) continue;
        size_t length = t->dim[a->axis];
        copies c = {.outer = before(y, a->axis), .n = length, .row = row, .from_step = row, .to_step = row};
        c.from = call->in[i], c.to = (char *)call->out[EK_CONCAT_Y] + start * row;
        c.from_outer = length * row, c.to_outer = y->dim[a->axis] * row;
        copy(call->pool, c);
        start += length;
    }
}

const ek_kernel EK_NAME(ek_kernel_expand) = {.run = expand};
const ek_kernel EK_NAME(ek_kernel_slice) = {.run = slice};
const ek_kernel EK_NAME(ek_kernel_unslice) = {.run = unslice};
const ek_kernel EK_NAME(ek_kernel_concat) = {.run = concat};
