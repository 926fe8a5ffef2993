/* Matrix products for linear layers and dense convolutions, forward and backward.
 *
 * ek_gemm:         y[M, N] = finish(A[M, K] @ B[K, N])      (forward, input gradients)
 * ek_outer_gemm:   dw[K, N] = A[M, K].T @ dy[M, N]          (weight gradients)
 *
 * A is a plain matrix or the patches of an image (im2col), which are gathered a tile at a time and never exist as a
 * whole. B is a weight in any of the orders that the forward and backward pass read it in. */
#ifndef EK_GEMM_H
#define EK_GEMM_H

#include <stddef.h>

#include "../../firmware/core/pool.h"
#include "epilogue.h"
#include "real.h"
#include "sgd.h"
#include "simd.h"

/* The register tile: EK_TILE_ROWS × EK_TILE_VECTORS accumulators, with room for one row of B and a broadcast. */
#if defined(__AVX512F__)
enum { EK_TILE_ROWS = 14, EK_TILE_VECTORS = 2 };
#elif defined(__aarch64__)
enum { EK_TILE_ROWS = 8, EK_TILE_VECTORS = 2 };
#else
enum { EK_TILE_ROWS = 6, EK_TILE_VECTORS = 2 };
#endif
enum { EK_PANEL = EK_TILE_VECTORS * EK_LANES }; /* columns of a tile */

#if defined(__aarch64__)
#define EK_BY_LANE 1 /* multiply-add takes one lane of a vector as the factor */
#else
#define EK_BY_LANE 0
#endif

/* A micro-kernel (gemm_tile.h), by the vectors and the rows of its tile, less 1. */
typedef void ek_tile(size_t depth, const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
        int add, const float *ahead, ptrdiff_t ahead_step);
extern ek_tile *const EK_NAME(ek_dot_tiles)[EK_TILE_VECTORS][EK_TILE_ROWS];
extern ek_tile *const EK_NAME(ek_outer_tiles)[EK_TILE_VECTORS][EK_TILE_ROWS];

/* Rows of A. Row r of a patch matrix is the window at place r of a grid, its columns are (tap row, tap column,
 * channel): tap (i, j) of place (p, q) is pixel (p step_h + first_h + i next_h, q step_w + first_w + j next_w), zero
 * outside. */
typedef struct {
    ek_real from; /* the matrix, or the image's first channel */
    size_t ld;         /* floats from row to row, or from pixel to pixel */
    int patches;       /* whether it is patches; the rest is about them */
    int height, width, channels;
    int grid_h, grid_w;
    int step_h, step_w, taps_h, taps_w, first_h, first_w, next_h, next_w;
} ek_rows;

/* B[k, n], k = (tap row, tap column, c) with c < `depth`: element i tap_row + j tap_column + c by_k + n by_n. Integers only where by_k
 * is 1: c is then the entry of the last axis. */
typedef struct {
    ek_real from;
    size_t depth, taps_w;
    ptrdiff_t tap_row, tap_column, by_k, by_n;
} ek_weights;

/* Which row of the result a row of the product is: the same, or for a grid with steps, a pixel of an image. */
typedef struct {
    int grid; /* 0: the same row */
    int grid_h, grid_w, height, width, step_h, step_w, first_h, first_w;
} ek_places;

/* The row of the result that a row of the product is, where there is a grid. */
EK_INLINE size_t ek_place_of(const ek_places *places, size_t row) {
    size_t grid = (size_t)places->grid_h * (size_t)places->grid_w, image = row / grid, place = row % grid;
    size_t h = place / (size_t)places->grid_w * (size_t)places->step_h + (size_t)places->first_h;
    size_t w = place % (size_t)places->grid_w * (size_t)places->step_w + (size_t)places->first_w;
    return (image * (size_t)places->height + h) * (size_t)places->width + w;
}

typedef struct {
    size_t m, k, n;
    ek_rows a;
    ek_weights b;
    const float *packed; /* B packed by ek_gemm_pack, or NULL */
    ek_places places;
    ek_epilogue finish;
    size_t column; /* of the result where the product's first column goes */
} ek_gemm;

size_t EK_NAME(ek_gemm_scratch)(size_t m, size_t k, size_t n, int threads);
void EK_NAME(ek_gemm)(const ek_gemm *g, ek_pool *pool, void *scratch);

/* With more rows than this, packing a frozen weight anew each run costs nothing next to the product; it is not kept
 * packed. A microcontroller's lie in flash, which a packed copy would not. */
#if defined(EK_M7)
enum { EK_PACK_ROWS = 0 };
#else
enum { EK_PACK_ROWS = 512 };
#endif

/* B of k × n packed: panels of EK_PANEL columns, each k × EK_PANEL, the last one padded with zeros. */
size_t EK_NAME(ek_gemm_packed_floats)(size_t k, size_t n);
void EK_NAME(ek_gemm_pack)(const ek_weights *b, size_t k, size_t n, float *to);

typedef struct {
    size_t m, k, n;
    ek_rows a;
    const float *dy; /* m rows of n, dy_ld apart */
    size_t dy_ld;
    float *dw, *db; /* k rows of n, dw_ld apart; db may be NULL */
    size_t dw_ld;
    const ek_sgd_row *step; /* not NULL: dw is a parameter, which makes this step; its rows are the gradient's */
} ek_outer_gemm;

size_t EK_NAME(ek_outer_gemm_scratch)(size_t m, size_t k, size_t n, int threads);
void EK_NAME(ek_outer_gemm)(const ek_outer_gemm *g, ek_pool *pool, void *scratch);

/* Copy rows [row, row + rows) × columns [column, column + columns) of A to `to`, `ld` ≥ columns floats from row to
 * row. May write EK_LANES - 1 floats past the last row. */
void EK_NAME(ek_gather)(const ek_rows *a, size_t row, size_t rows, size_t column, size_t columns, float *to, size_t ld);

EK_INLINE size_t ek_min(size_t a, size_t b) { return a < b ? a : b; }
EK_INLINE size_t ek_max(size_t a, size_t b) { return a > b ? a : b; }
EK_INLINE size_t ek_round_up(size_t a, size_t unit) { return (a + unit - 1) / unit * unit; }

/* `total` cut into the fewest pieces of at most `most`, evened out, in whole units: the size of a piece. */
EK_INLINE size_t ek_even(size_t total, size_t most, size_t unit) {
    size_t pieces = (total + most - 1) / most;
    return pieces ? ek_round_up((total + pieces - 1) / pieces, unit) : unit;
}

/* Work whose results do not depend on who does which part, in several times as many parts as there are threads. Each thread has its
 * share of them, whose operands it left in its caches before, and then takes what others have not come to: so nobody waits for a
 * thread whose core is slower or has other processes to run. */
#if defined(EK_M7)
enum { EK_SHARES = 1 };
#else
enum { EK_SHARES = 16 }; /* more threads than that have one together */
#endif
typedef struct {
    size_t parts;
    size_t taken[EK_SHARES]; /* of each thread's share */
} ek_turns;

EK_INLINE size_t ek_parts(size_t threads) { return 8 * threads; }

/* Thread `index` takes a part; whether there was one. */
EK_INLINE int ek_take(ek_turns *turns, int index, int count, size_t *part) {
    size_t shares = ek_min((size_t)count, EK_SHARES);
    for (size_t i = 0; i < shares; i++) {
        size_t whose = ((size_t)index + i) % shares, from = turns->parts * whose / shares;
        *part = from + __atomic_fetch_add(&turns->taken[whose], 1, __ATOMIC_RELAXED);
        if (*part < turns->parts * (whose + 1) / shares) return 1;
    }
    return 0;
}

/* Part `index` of `count` of [0, total) in whole units. */
EK_INLINE void ek_share(size_t total, size_t unit, int index, int count, size_t *from, size_t *to) {
    size_t units = (total + unit - 1) / unit;
    *from = ek_min(units * (size_t)index / (size_t)count * unit, total);
    *to = ek_min(units * ((size_t)index + 1) / (size_t)count * unit, total);
}

#endif
