#include "gemm_few.h"

#include "ahead.h"
#include "gemm_pack.h"

#if !defined(EK_M7) /* whose products are its own */

/* DEPTH rows of B make one pass over a strip of the result, whose sums stay in the first-level cache meanwhile. */
enum { DEPTH = 16, STRIP = 512, TALL_STRIP = 8 * EK_TILE_ROWS };

int EK_NAME(ek_gemm_is_few)(const ek_gemm *g) {
    return g->m <= EK_FEW_ROWS && !g->packed && !g->a.patches && !g->places.grid && g->column % 8 == 0 && g->b.depth == g->k
            && (g->b.by_n == 1 || g->b.by_k == 1);
}

static size_t thread_floats(size_t m, size_t k) {
    return ek_round_up(ek_max(m * STRIP + DEPTH * EK_PANEL, m * TALL_STRIP + k * EK_PANEL), 16);
}

size_t EK_NAME(ek_gemm_few_scratch)(size_t m, size_t k, int threads) {
    return m <= EK_FEW_ROWS ? thread_floats(m, k) * sizeof(float) * (size_t)threads : 0;
}

typedef struct {
    const ek_gemm *g;
    float *scratch;
    size_t strip; /* columns of the result */
    ek_turns turns;
} job;

/* --- B by rows: a few rows of it are added to a strip of the result at a time --- */

/* Sums of columns [n0, n0 + n) over [k0, k0 + depth). The rows of B after these are asked for meanwhile. */
static void add_rows(const ek_gemm *g, size_t k0, size_t depth, size_t n0, size_t n, float *sums, size_t ld, float *tail) {
    size_t tall = ek_even(g->m, EK_TILE_ROWS, 1);
    const float *from = g->b.from.data + (ptrdiff_t)k0 * g->b.by_k + n0;
    for (size_t j = 0; j < n; j += EK_PANEL) {
        const float *b = from + j, *next = b + (ptrdiff_t)depth * g->b.by_k;
        size_t b_ld = (size_t)g->b.by_k, wide = ek_min(EK_PANEL, n - j);
        if (wide < EK_PANEL) EK_NAME(ek_pack_panel)(&g->b, k0, depth, n0 + j, wide, tail), b = tail, b_ld = EK_PANEL;
        ek_tile *const *tiles = EK_NAME(ek_dot_tiles)[(wide + EK_LANES - 1) / EK_LANES - 1];
        for (size_t i = 0; i < g->m; i += tall) {
            size_t rows = ek_min(tall, g->m - i);
            tiles[rows - 1](depth, g->a.from.data + i * g->a.ld + k0, g->a.ld, b, b_ld, sums + i * ld + j, ld, k0 > 0, next, g->b.by_k);
            next = b;
        }
    }
}

static void strip_by_rows(const job *work, size_t n0, size_t n, float *sums) {
    const ek_gemm *g = work->g;
    float *tail = sums + g->m * work->strip;
    for (size_t k = 0; k < g->k; k += DEPTH) add_rows(g, k, ek_min(DEPTH, g->k - k), n0, n, sums, work->strip, tail);
}

/* --- B by columns, which lie one after the other: the product transposed, with B's columns as the rows of a tile --- */

static void transpose_a(const ek_gemm *g, float *to) {
    ek_weights a = {.from = g->a.from, .depth = g->k, .taps_w = 1, .by_k = 1, .by_n = (ptrdiff_t)g->a.ld};
    EK_NAME(ek_pack_panel)(&a, 0, g->k, 0, g->m, to);
}

static void strip_by_columns(const job *work, size_t n0, size_t n, const float *a, float *sums) {
    const ek_gemm *g = work->g;
    ek_tile *const *tiles = EK_NAME(ek_dot_tiles)[(g->m + EK_LANES - 1) / EK_LANES - 1];
    size_t ld = (size_t)g->b.by_n;
    for (size_t j = 0; j < n; j += EK_TILE_ROWS) {
        float tile[EK_TILE_ROWS * EK_PANEL];
        size_t rows = ek_min(EK_TILE_ROWS, n - j);
        const float *b = g->b.from.data + (n0 + j) * ld;
        tiles[rows - 1](g->k, b, ld, a, EK_PANEL, tile, EK_PANEL, 0, b + rows * ld, (ptrdiff_t)rows); /* as many lines as it reads */
        for (size_t i = 0; i < g->m; i++)
            for (size_t r = 0; r < rows; r++) sums[i * work->strip + j + r] = tile[r * EK_PANEL + i];
    }
}

static void run_part(void *context, int index, int count) {
    job *work = context;
    const ek_gemm *g = work->g;
    float *sums = work->scratch + (size_t)index * thread_floats(g->m, g->k), *a = NULL;
    for (size_t part; ek_take(&work->turns, index, count, &part);) {
        size_t n0 = part * work->strip, n = ek_min(work->strip, g->n - n0);
        if (g->b.by_n == 1) strip_by_rows(work, n0, n, sums);
        else {
            if (!a) a = sums + g->m * work->strip, transpose_a(g, a);
            strip_by_columns(work, n0, n, a, sums);
        }
        EK_NAME(ek_finish)(&g->finish, sums, work->strip, g->m, 0, 1, g->column + n0, n);
    }
    ek_finished(&g->finish);
}

void EK_NAME(ek_gemm_few)(const ek_gemm *g, ek_pool *pool, void *scratch) {
    size_t threads = (size_t)ek_pool_threads(pool), share = (g->n + threads - 1) / threads;
    job work = {.g = g, .scratch = scratch, .strip = g->b.by_n == 1 ? ek_even(g->n, ek_min(share, STRIP), EK_PANEL) : TALL_STRIP};
    work.turns.parts = (g->n + work.strip - 1) / work.strip;
    ek_pool_run(pool, run_part, &work);
}

#endif
