/* The micro-kernels: one register tile of `rows` × `vectors` accumulators over the whole depth that they are given.
 *   dot tile:    c[i, :] (+)= sum over k of a[i, k] b[k, :]     (A by rows)
 *   outer tile:  c[i, :] (+)= sum over m of a[m, i] b[m, :]     (A by columns)
 * `add` says whether c holds earlier blocks' sums. `ahead`: lines of memory to ask for, one with each step (ahead.h).
 * One instance for every number of rows and vectors up to the full tile, so that no work is done for rows that do not
 * exist. */
#ifndef EK_GEMM_TILE_H
#define EK_GEMM_TILE_H

#include "ahead.h"
#include "gemm.h"

EK_INLINE void ek_tile_store(int rows, int vectors, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS], float *c, size_t ldc,
        int add) {
    EK_UNROLL
    for (int i = 0; i < rows; i++) {
        EK_UNROLL
        for (int j = 0; j < vectors; j++) {
            float *to = c + (size_t)i * ldc + (size_t)(j * EK_LANES);
            ek_store(to, add ? ek_load(to) + acc[i][j] : acc[i][j]);
        }
    }
}

/* The sums of the blocks of K before this one, which a dot tile goes on from: so the bits do not depend on where K is cut. */
EK_INLINE void ek_tile_load(int rows, int vectors, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS], const float *c, size_t ldc) {
    EK_UNROLL
    for (int i = 0; i < rows; i++) {
        EK_UNROLL
        for (int j = 0; j < vectors; j++) acc[i][j] = ek_load(c + (size_t)i * ldc + (size_t)(j * EK_LANES));
    }
}

EK_INLINE void ek_dot_step(int rows, int vectors, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS], const float *a,
        size_t lda, const float *b) {
    ek_vf row[EK_TILE_VECTORS];
    EK_UNROLL
    for (int j = 0; j < vectors; j++) row[j] = ek_load(b + j * EK_LANES);
    EK_UNROLL
    for (int i = 0; i < rows; i++) {
        EK_UNROLL
        for (int j = 0; j < vectors; j++) acc[i][j] += a[(size_t)i * lda] * row[j];
    }
}

EK_INLINE void ek_dot_sum(int rows, int vectors, size_t depth, const float *a, size_t lda, const float *b, size_t ldb,
        const float *ahead, ptrdiff_t ahead_step, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS]) {
    size_t k = 0;
#if EK_BY_LANE
    for (; k + EK_LANES <= depth; k += EK_LANES) {
        ek_vf column[EK_TILE_ROWS];
        EK_UNROLL
        for (int i = 0; i < rows; i++) column[i] = ek_load(a + (size_t)i * lda + k);
        EK_UNROLL
        for (int lane = 0; lane < EK_LANES; lane++, b += ldb) {
            ek_vf row[EK_TILE_VECTORS];
            EK_UNROLL
            for (int j = 0; j < vectors; j++) row[j] = ek_load(b + j * EK_LANES);
            EK_UNROLL
            for (int i = 0; i < rows; i++) {
                EK_UNROLL
                for (int j = 0; j < vectors; j++) acc[i][j] += column[i][lane] * row[j];
            }
        }
    }
#endif
    for (; k < depth; k++, b += ldb, ahead += ahead_step) {
        ek_ahead_line(ahead);
        ek_dot_step(rows, vectors, acc, a + k, lda, b);
    }
}

EK_INLINE void ek_dot_tile(int rows, int vectors, size_t depth, const float *a, size_t lda, const float *b,
        size_t ldb, float *c, size_t ldc, int add, const float *ahead, ptrdiff_t ahead_step) {
    ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS] = {0};
    if (add) ek_tile_load(rows, vectors, acc, c, ldc);
    ek_dot_sum(rows, vectors, depth, a, lda, b, ldb, ahead, ahead_step, acc);
    ek_tile_store(rows, vectors, acc, c, ldc, 0);
}

/* The same step with A's row as vectors, for whole vectors of rows. */
EK_INLINE void ek_outer_step(int rows, int vectors, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS], const float *a,
        const float *b) {
    ek_vf row[EK_TILE_VECTORS];
    EK_UNROLL
    for (int j = 0; j < vectors; j++) row[j] = ek_load(b + j * EK_LANES);
    EK_UNROLL
    for (int i = 0; i < rows; i += EK_LANES) {
        ek_vf column = ek_load(a + i);
        EK_UNROLL
        for (int lane = 0; lane < EK_LANES && i + lane < rows; lane++) {
            EK_UNROLL
            for (int j = 0; j < vectors; j++) acc[i + lane][j] += column[lane] * row[j];
        }
    }
}

EK_INLINE void ek_outer_sum(int rows, int vectors, size_t depth, const float *a, size_t lda, const float *b, size_t ldb,
        const float *ahead, ptrdiff_t ahead_step, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS]) {
    for (size_t m = 0; m < depth; m++, a += lda, b += ldb, ahead += ahead_step) {
        ek_ahead_line(ahead);
        if (EK_BY_LANE && rows % EK_LANES == 0) ek_outer_step(rows, vectors, acc, a, b);
        else ek_dot_step(rows, vectors, acc, a, 1, b);
    }
}

EK_INLINE void ek_outer_tile(int rows, int vectors, size_t depth, const float *a, size_t lda, const float *b,
        size_t ldb, float *c, size_t ldc, int add, const float *ahead, ptrdiff_t ahead_step) {
    ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS] = {0};
    ek_outer_sum(rows, vectors, depth, a, lda, b, ldb, ahead, ahead_step, acc);
    ek_tile_store(rows, vectors, acc, c, ldc, add);
}

#define EK_TILE_INSTANCE(kind, rows, vectors) \
    static void ek_##kind##_##rows##_##vectors(size_t depth, const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc, int add, const float *ahead, ptrdiff_t ahead_step) { \
        ek_##kind##_tile(rows, vectors, depth, a, lda, b, ldb, c, ldc, add, ahead, ahead_step); \
    }

#if defined(__AVX512F__)
#define EK_EACH_ROWS(f, kind, v) \
    f(kind, 1, v) f(kind, 2, v) f(kind, 3, v) f(kind, 4, v) f(kind, 5, v) f(kind, 6, v) f(kind, 7, v) \
    f(kind, 8, v) f(kind, 9, v) f(kind, 10, v) f(kind, 11, v) f(kind, 12, v) f(kind, 13, v) f(kind, 14, v)
#elif defined(__aarch64__)
#define EK_EACH_ROWS(f, kind, v) \
    f(kind, 1, v) f(kind, 2, v) f(kind, 3, v) f(kind, 4, v) f(kind, 5, v) f(kind, 6, v) f(kind, 7, v) f(kind, 8, v)
#else
#define EK_EACH_ROWS(f, kind, v) f(kind, 1, v) f(kind, 2, v) f(kind, 3, v) f(kind, 4, v) f(kind, 5, v) f(kind, 6, v)
#endif

#define EK_TILE_NAME(kind, rows, vectors) ek_##kind##_##rows##_##vectors,
#define EK_TILE_TABLE(kind) \
    EK_EACH_ROWS(EK_TILE_INSTANCE, kind, 1) \
    EK_EACH_ROWS(EK_TILE_INSTANCE, kind, 2) \
    ek_tile *const EK_NAME(ek_##kind##_tiles)[EK_TILE_VECTORS][EK_TILE_ROWS] = { \
        {EK_EACH_ROWS(EK_TILE_NAME, kind, 1)}, {EK_EACH_ROWS(EK_TILE_NAME, kind, 2)}};

#endif
