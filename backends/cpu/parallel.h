/* How a kernel's work is split over the pool's threads, and the sizes that it is split by. */
#ifndef EK_PARALLEL_H
#define EK_PARALLEL_H

#include <stddef.h>

#include "../../firmware/core/kernel.h"

/* Elements below which waking the threads costs more than it saves. */
enum { EK_SERIAL = 16384 };

typedef struct {
    size_t begin, end;
} ek_range;

/* Part `index` of `count` of n items. Inner borders lie on multiples of `grain`. */
static inline ek_range ek_share(size_t n, size_t grain, int index, int count) {
    size_t grains = (n + grain - 1) / grain;
    size_t parts = (size_t)count, part = (size_t)index;
    size_t begin = grains * part / parts * grain, end = grains * (part + 1) / parts * grain;
    return (ek_range){begin < n ? begin : n, end < n ? end : n};
}

static inline int ek_threads_for(const ek_pool *pool, size_t elements) {
    return elements < EK_SERIAL ? 1 : ek_pool_threads(pool);
}

/* Run `work` on as many threads as so many elements are worth. */
static inline void ek_parallel(ek_pool *pool, size_t elements, ek_work *work, void *context) {
    if (ek_threads_for(pool, elements) == 1) work(context, 0, 1);
    else ek_pool_run(pool, work, context);
}

static inline size_t ek_elements(const ek_tensor *t) {
    size_t n = 1;
    /* At most six factors, which clang would multiply in vectors, hundreds of bytes of them in every kernel. */
    _Pragma("clang loop vectorize(disable) interleave(disable) unroll(disable)")
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

/* Length of the last axis; 1 for a scalar. */
static inline size_t ek_columns(const ek_tensor *t) { return t->rank ? t->dim[t->rank - 1] : 1; }

#endif
