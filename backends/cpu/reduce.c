/* Sum, mean and maximum over some axes.
 *
 * Neighbouring axes of a kind are one, so nearly every reduction is x[outer, length, inner] -> y[outer, inner]: the
 * columns of leading axes (outer = 1), the image plane of [N, H, W, C] (inner = C), or rows (inner = 1). What is
 * left (reduced and kept axes more than twice in turn) is done element by element. Sums run over short blocks first,
 * so that rounding errors grow with a block's length and the number of blocks, not with their product. */
#include <math.h>

#include "simd.h"
#include "strides.h"

enum { BLOCK = 128, WIDE = 4 };

typedef struct {
    const float *x;
    float *y;
    size_t outer, length, inner;
    int fn;
    float scale;    /* of the finished results: 1 / length for a mean */
    int by_length;  /* threads share `length` and write partial results one after the other, not results */
} reduction;

EK_INLINE ek_vf larger(ek_vf a, ek_vf b) { return ek_select((b > a) | (b != b), b, a); }
EK_INLINE ek_vf join(int fn, ek_vf a, ek_vf b) { return fn == EK_REDUCE_MAX ? larger(a, b) : a + b; }
EK_INLINE ek_vf start(int fn) { return ek_splat(fn == EK_REDUCE_MAX ? -INFINITY : 0.0f); }

/* y[0 … width) = the reduction of `length` rows of x that lie `inner` apart; width <= WIDE * EK_LANES. */
EK_INLINE void columns(int fn, const float *x, size_t length, size_t inner, int vectors, int last, float scale,
                       float *y) {
    ek_vf total[WIDE];
    for (int k = 0; k < vectors; k++) total[k] = start(fn);
    for (size_t from = 0; from < length; from += BLOCK) {
        size_t to = from + BLOCK < length ? from + BLOCK : length;
        ek_vf part[WIDE];
        for (int k = 0; k < vectors; k++) part[k] = start(fn);
        for (size_t i = from; i < to; i++) {
            const float *row = x + i * inner;
            for (int k = 0; k < vectors - 1; k++) part[k] = join(fn, part[k], ek_load(row + k * EK_LANES));
            const float *end = row + (vectors - 1) * EK_LANES;
            part[vectors - 1] = join(fn, part[vectors - 1], last == EK_LANES ? ek_load(end) : ek_load_part(end, last));
        }
        for (int k = 0; k < vectors; k++) total[k] = join(fn, total[k], part[k]);
    }
    for (int k = 0; k < vectors - 1; k++) ek_store(y + k * EK_LANES, total[k] * scale);
    ek_store_part(y + (vectors - 1) * EK_LANES, total[vectors - 1] * scale, last);
}

EK_INLINE void columns_any(int fn, const float *x, size_t length, size_t inner, size_t width, float scale, float *y) {
    int vectors = (int)((width + EK_LANES - 1) / EK_LANES), last = (int)width - (vectors - 1) * EK_LANES;
    if (vectors == WIDE && last == EK_LANES) columns(fn, x, length, inner, WIDE, EK_LANES, scale, y);
    else if (vectors == 1 && last == EK_LANES) columns(fn, x, length, inner, 1, EK_LANES, scale, y);
    else columns(fn, x, length, inner, vectors, last, scale, y);
}

EK_INLINE float larger_of(float a, float b) { return b > a || b != b ? b : a; }

/* The reduction of a vector's lanes, by halves. */
EK_INLINE float across(int fn, ek_vf v) {
    float lane[EK_LANES];
    ek_store(lane, v);
    EK_UNROLL
    for (int half = EK_LANES / 2; half > 0; half /= 2) {
        EK_UNROLL
        for (int i = 0; i < half; i++)
            lane[i] = fn == EK_REDUCE_MAX ? larger_of(lane[i], lane[i + half]) : lane[i] + lane[i + half];
    }
    return lane[0];
}

/* The reduction of n neighbours. */
EK_INLINE float row(int fn, const float *x, size_t n, float scale) {
    enum { STEP = WIDE * EK_LANES };
    float largest = -INFINITY;
    double total = 0.0;
    for (size_t from = 0; from < n; from += BLOCK * STEP) {
        size_t to = from + BLOCK * STEP < n ? from + BLOCK * STEP : n, i = from;
        ek_vf part[WIDE] = {start(fn), start(fn), start(fn), start(fn)};
        for (; i + STEP <= to; i += STEP)
            for (int k = 0; k < WIDE; k++) part[k] = join(fn, part[k], ek_load(x + i + k * EK_LANES));
        ek_vf all = join(fn, join(fn, part[0], part[1]), join(fn, part[2], part[3]));
        for (; i + EK_LANES <= to; i += EK_LANES) all = join(fn, all, ek_load(x + i));
        float one = across(fn, all);
        for (; i < to; i++) one = fn == EK_REDUCE_MAX ? larger_of(one, x[i]) : one + x[i];
        largest = larger_of(largest, one);
        total += one;
    }
    return fn == EK_REDUCE_MAX ? largest : (float)(total * scale);
}

/* Results `inner` of an outer index, over the elements `length` of the reduced axis. */
EK_INLINE void reduce_some(int fn, const reduction *r, size_t outer, ek_range inner, ek_range length, float scale,
                           float *y) {
    const float *x = r->x + (outer * r->length + length.begin) * r->inner;
    size_t n = length.end - length.begin;
    if (r->inner == 1) {
        y[0] = row(fn, x, n, scale);
        return;
    }
    for (size_t at = inner.begin; at < inner.end; at += WIDE * EK_LANES) {
        size_t width = inner.end - at < WIDE * EK_LANES ? inner.end - at : WIDE * EK_LANES;
        columns_any(fn, x + at, n, r->inner, width, scale, y + at);
    }
}

static void reduce_any(const reduction *r, size_t outer, ek_range inner, ek_range length, float scale, float *y) {
    if (r->fn == EK_REDUCE_MAX) reduce_some(EK_REDUCE_MAX, r, outer, inner, length, scale, y);
    else reduce_some(EK_REDUCE_SUM, r, outer, inner, length, scale, y);
}

static void reduce_part(void *context, int index, int count) {
    const reduction *r = context;
    if (r->by_length) {
        float *partial = r->y + (size_t)index * r->outer * r->inner;
        ek_range length = ek_share(r->length, 1, index, count);
        for (size_t o = 0; o < r->outer; o++)
            reduce_any(r, o, (ek_range){0, r->inner}, length, 1.0f, partial + o * r->inner);
        return;
    }
    const size_t grain = WIDE * EK_LANES, chunks = (r->inner + grain - 1) / grain;
    ek_range units = ek_share(r->outer * chunks, 1, index, count);
    for (size_t u = units.begin; u < units.end; u++) {
        size_t o = u / chunks, from = u % chunks * grain;
        ek_range inner = {from, from + grain < r->inner ? from + grain : r->inner};
        reduce_any(r, o, inner, (ek_range){0, r->length}, r->scale, r->y + o * r->inner);
    }
}

/* How the axes fall into x[outer, length, inner]; 0 if they do not. */
static int in_three(const ek_tensor *x, int32_t axes, reduction *r) {
    r->outer = r->length = r->inner = 1;
    size_t *to = &r->outer;
    for (int i = 0; i < x->rank; i++) {
        if (x->dim[i] == 1) continue;
        if (axes >> i & 1) {
            if (to == &r->inner) return 0;
            to = &r->length;
        } else if (to == &r->length) {
            to = &r->inner;
        }
        *to *= x->dim[i];
    }
    return 1;
}

/* Few results and much to reduce for each: threads share that and join their partial results. */
static int threads_by_length(const reduction *r, int threads) {
    size_t units = r->outer * ((r->inner + WIDE * EK_LANES - 1) / (WIDE * EK_LANES));
    return threads > 1 && units < (size_t)threads && r->length >= 8 * (size_t)threads;
}

static size_t reduce_scratch(const ek_call *call, int threads) {
    const ek_reduce_attrs *a = call->attrs;
    reduction r;
    if (!in_three(call->in_t[EK_REDUCE_X], a->axes, &r) || !threads_by_length(&r, threads)) return 0;
    return (size_t)threads * r.outer * r.inner * sizeof(float);
}

/* Any axes: for each result, the elements in order. */
static void reduce_generic(const ek_call *call, int fn) {
    const ek_reduce_attrs *a = call->attrs;
    const ek_tensor *t = call->in_t[EK_REDUCE_X];
    const float *x = call->in[EK_REDUCE_X];
    float *y = call->out[EK_REDUCE_Y];
    ek_space kept = {0}, reduced = {0};
    size_t inner[EK_MAX_RANK], size = 1;
    for (int i = t->rank - 1; i >= 0; i--) inner[i] = size, size *= t->dim[i];
    for (int i = 0; i < t->rank; i++)
        ek_space_add(a->axes >> i & 1 ? &reduced : &kept, t->dim[i], (size_t[EK_OPERANDS]){inner[i]});
    size_t n = 1, results;
    for (int i = 0; i < reduced.rank; i++) n *= reduced.dim[i];
    results = size / n;
    ek_walk out = ek_walk_from(&kept, 0);
    for (size_t i = 0; i < results; i++, ek_walk_on(&kept, &out, 1)) {
        double total = fn == EK_REDUCE_MAX ? -INFINITY : 0.0;
        ek_walk in = ek_walk_from(&reduced, 0);
        for (size_t k = 0; k < n; k++, ek_walk_on(&reduced, &in, 1)) {
            float v = x[out.at[0] + in.at[0]];
            if (fn != EK_REDUCE_MAX) total += v;
            else if (v > total || v != v) total = v;
        }
        y[i] = (float)(fn == EK_REDUCE_MEAN ? total / (double)n : total);
    }
}

static void reduce(const ek_call *call) {
    const ek_reduce_attrs *a = call->attrs;
    reduction r = {.x = call->in[EK_REDUCE_X], .y = call->out[EK_REDUCE_Y], .fn = a->fn};
    if (!in_three(call->in_t[EK_REDUCE_X], a->axes, &r)) {
        reduce_generic(call, a->fn);
        return;
    }
    r.scale = a->fn == EK_REDUCE_MEAN ? 1.0f / (float)r.length : 1.0f;
    int threads = ek_threads_for(call->pool, r.outer * r.length * r.inner);
    if (!threads_by_length(&r, threads)) {
        ek_parallel(call->pool, r.outer * r.length * r.inner, reduce_part, &r);
        return;
    }
    r.by_length = 1, r.y = call->scratch;
    ek_pool_run(call->pool, reduce_part, &r);
    reduction join = {.x = call->scratch, .y = call->out[EK_REDUCE_Y], .fn = a->fn, .scale = r.scale};
    join.outer = 1, join.length = (size_t)threads, join.inner = r.outer * r.inner;
    reduce_part(&join, 0, 1);
}

const ek_kernel EK_NAME(ek_kernel_reduce) = {.scratch_bytes = reduce_scratch, .run = reduce};
