/* The weight gradient by Winograd's formula: 16 products of transformed pixels and transformed dy, as ek_outer_gemm makes them. */
#include "ahead.h"
#include "winograd.h"

enum { POINTS = 16, MOST_TILES = 64 };

/* Floats of a thread's sums and of its transformed pixels: for more columns the pixels are transformed again. */
#if defined(__aarch64__)
enum { SUMS = 64 * 1024, PIXELS = 64 * 1024 };
#else
enum { SUMS = 256 * 1024, PIXELS = 256 * 1024 };
#endif

/* How much is worked on at a time, and the floats of a thread's buffers: pixels [point][tile][k], dy [point][tile][column],
 * sums [point][k][column], and dy's own sums [column]. */
typedef struct {
    size_t columns, tiles;
    size_t pixels, dy, sums, own;
} sizes;

static sizes sizes_of(size_t k, size_t n) {
    size_t columns = SUMS / (POINTS * k) / EK_PANEL * EK_PANEL, tiles = PIXELS / (POINTS * k);
    sizes s = {.columns = ek_even(n, columns < EK_PANEL ? EK_PANEL : columns, EK_PANEL)};
    s.tiles = tiles < 8 ? 8 : ek_min(tiles, MOST_TILES);
    s.pixels = POINTS * s.tiles * k, s.dy = POINTS * s.tiles * s.columns, s.sums = POINTS * k * s.columns;
    s.own = s.pixels + s.dy + s.sums + s.columns;
    return s;
}

size_t EK_NAME(ek_winograd_grad_scratch)(size_t k, size_t n, int threads) {
    return (k + sizes_of(k, n).own * (size_t)threads) * sizeof(float);
}

typedef struct {
    const ek_winograd_grad *g;
    sizes s;
    float *zeros, *own;
    size_t from, to; /* columns of dw */
} job;

/* (a, a + b, a - b, -b): one row of A dy Aᵀ from two. */
EK_INLINE void transform_two(ek_vf a, ek_vf b, ek_vf to[4]) { to[0] = a, to[1] = a + b, to[2] = a - b, to[3] = -b; }

/* A tile's 2 × 2 results; those past the edge are zeros. */
static void transform_dy(const job *work, ek_winograd_place at, float *to) {
    const ek_winograd_grad *g = work->g;
    const float *first = g->dy + ((at.image * (size_t)g->out_h + (size_t)at.h) * (size_t)g->out_w + (size_t)at.w) * g->n;
    int right = at.w + 1 < g->out_w, below = at.h + 1 < g->out_h;
    size_t point = work->s.tiles * work->s.columns;
    for (size_t c = work->from; c < work->to; c += EK_LANES, to += EK_LANES) {
        const float *p = first + c, *q = p + (size_t)g->out_w * g->n;
        ek_vf zero = {0}, rows[2][4], e[4];
        transform_two(ek_load(p), right ? ek_load(p + g->n) : zero, rows[0]);
        transform_two(below ? ek_load(q) : zero, below && right ? ek_load(q + g->n) : zero, rows[1]);
        EK_UNROLL
        for (int j = 0; j < 4; j++) {
            transform_two(rows[0][j], rows[1][j], e);
            EK_UNROLL
            for (int i = 0; i < 4; i++) ek_store(to + (size_t)(4 * i + j) * point, e[i]);
        }
    }
}

/* Point (1, 1) of a transformed tile is the sum of its dy. */
static void add_bias(const job *work, const float *dy, size_t tiles, float *sum) {
    for (size_t c = 0; c < work->to - work->from; c += EK_LANES) {
        const float *from = dy + 5 * work->s.tiles * work->s.columns + c;
        ek_vf total = ek_load(sum + c);
        for (size_t i = 0; i < tiles; i++) total += ek_load(from + i * work->s.columns);
        ek_store(sum + c, total);
    }
}

/* The sums of tiles [from, to), added to earlier ones. */
static void sum_block(const job *work, size_t from, size_t to, int add, float *own) {
    const ek_winograd_grad *g = work->g;
    const sizes *s = &work->s;
    float *pixels = own, *dy = pixels + s->pixels, *sums = dy + s->dy;
    for (size_t i = 0; i < to - from; i++) {
        ek_winograd_place at = ek_winograd_find(from + i, g->out_h, g->out_w);
        EK_NAME(ek_winograd_pixels)(g->x + at.image * (size_t)g->height * (size_t)g->width * g->k, g->height, g->width, g->k,
                at.h + g->first_h, at.w + g->first_w, work->zeros, pixels + i * g->k, s->tiles * g->k);
        transform_dy(work, at, dy + i * s->columns);
    }
    for (size_t p = 0; p < POINTS; p++) {
        const float *a = pixels + p * s->tiles * g->k, *b = dy + p * s->tiles * s->columns;
        float *c = sums + p * g->k * s->columns;
        for (size_t i = 0; i < g->k; i += EK_TILE_ROWS) {
            size_t rows = ek_min(EK_TILE_ROWS, g->k - i);
            for (size_t j = 0; j < work->to - work->from; j += EK_PANEL) {
                size_t vectors = (ek_min(EK_PANEL, work->to - work->from - j) + EK_LANES - 1) / EK_LANES;
                EK_NAME(ek_outer_tiles)[vectors - 1][rows - 1](to - from, a + i, g->k, b + j, s->columns, c + i * s->columns + j,
                        s->columns, add, a + i, EK_LINE);
            }
        }
    }
    if (g->db) add_bias(work, dy, to - from, sums + s->sums);
}

static void sum_part(void *context, int index, int count) {
    const job *work = context;
    const ek_winograd_grad *g = work->g;
    float *own = work->own + (size_t)index * work->s.own;
    size_t from, to, tiles = (((size_t)g->out_h + 1) / 2) * (((size_t)g->out_w + 1) / 2);
    ek_share((size_t)g->images * tiles, 1, index, count, &from, &to);
    size_t clear = from < to ? work->s.columns : work->s.columns + work->s.sums; /* more threads than tiles: sums of nothing */
    memset(own + work->s.own - clear, 0, clear * sizeof *own);
    for (size_t tile = from; tile < to; tile += work->s.tiles)
        sum_block(work, tile, ek_min(tile + work->s.tiles, to), tile > from, own);
}

/* One row of Gᵀ s G from four. */
EK_INLINE void transform_sums(const ek_vf s[4], ek_vf to[3]) {
    ek_vf half = (s[1] + s[2]) * 0.5f;
    to[0] = s[0] + half, to[1] = (s[1] - s[2]) * 0.5f, to[2] = half + s[3];
}

/* The threads' sums, added in order. */
EK_INLINE ek_vf add_parts(const job *work, size_t at, int count) {
    ek_vf sum = ek_load(work->own + at);
    for (int t = 1; t < count; t++) sum += ek_load(work->own + (size_t)t * work->s.own + at);
    return sum;
}

static void finish_part(void *context, int index, int count) {
    const job *work = context;
    const ek_winograd_grad *g = work->g;
    size_t from, to, sums = work->s.pixels + work->s.dy;
    ek_share(g->k, 1, index, count, &from, &to);
    for (size_t k = from; k < to; k++) {
        for (size_t c = 0; c < work->to - work->from; c += EK_LANES) {
            ek_vf columns[4][3], dw[3];
            EK_UNROLL
            for (size_t j = 0; j < 4; j++) {
                ek_vf s[4];
                EK_UNROLL
                for (size_t i = 0; i < 4; i++) s[i] = add_parts(work, sums + ((4 * i + j) * g->k + k) * work->s.columns + c, count);
                transform_sums(s, columns[j]);
            }
            EK_UNROLL
            for (size_t i = 0; i < 3; i++) {
                ek_vf s[4] = {columns[0][i], columns[1][i], columns[2][i], columns[3][i]};
                transform_sums(s, dw);
                EK_UNROLL
                for (size_t j = 0; j < 3; j++) ek_store(g->dw + ((3 * i + j) * g->k + k) * g->n + work->from + c, dw[j]);
            }
        }
    }
    for (size_t c = 0; g->db && index == 0 && c < work->to - work->from; c += EK_LANES)
        ek_store(g->db + work->from + c, add_parts(work, sums + work->s.sums + c, count));
}

void EK_NAME(ek_winograd_grad)(const ek_winograd_grad *g, ek_pool *pool, void *scratch) {
    job work = {.g = g, .s = sizes_of(g->k, g->n), .zeros = scratch, .own = (float *)scratch + g->k};
    memset(work.zeros, 0, g->k * sizeof(float));
    for (; work.from < g->n; work.from = work.to) {
        work.to = ek_min(work.from + work.s.columns, g->n);
        ek_pool_run(pool, sum_part, &work);
        ek_pool_run(pool, finish_part, &work);
    }
}
