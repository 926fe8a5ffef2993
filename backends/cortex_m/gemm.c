/* y = finish(A @ B) for a processor with 32 scalar float registers and little memory. B is read through a tile of DEPTH × COLUMNS
 * floats, in which integers become floats, once for every ROWS rows of A; a product of 4 × 4 sums stays in registers. */
#include "gemm.h"

enum { ROWS = 32, DEPTH = 64, COLUMNS = EK_STEP, SIDE = 4 };

typedef struct {
    float b[DEPTH][COLUMNS], sum[ROWS][COLUMNS];
    float a[SIDE * DEPTH + EK_LANES]; /* rows of patches */
} tiles;

size_t EK_NAME(ek_gemm_scratch)(size_t m, size_t k, size_t n, int threads) {
    (void)m, (void)k, (void)n;
    return sizeof(tiles) * (size_t)threads;
}

/* Column n of B from depth k on, at most `depth` of them, as far as they lie in one tap. */
static size_t read_run(const ek_weights *b, size_t k, size_t depth, size_t n, float *to) {
    size_t tap = k / b->depth, c = k % b->depth, run = ek_min(b->depth - c, depth);
    ptrdiff_t at = (ptrdiff_t)(tap / b->taps_w) * b->tap_row + (ptrdiff_t)(tap % b->taps_w) * b->tap_column +
                   (ptrdiff_t)c * b->by_k + (ptrdiff_t)n * b->by_n;
    if (b->from.data) {
        const float *from = b->from.data + at;
        for (size_t i = 0; i < run; i++, from += b->by_k, to += COLUMNS) *to = *from;
        return run;
    }
    const int8_t *from = b->from.whole + at;
    const float *scale = b->from.scale + c;
    _Pragma("clang loop unroll(disable)")
    for (size_t i = run / 4; i; i--, from += 4, scale += 4, to += 4 * COLUMNS) {
        EK_UNROLL
        for (int j = 0; j < 4; j++) to[j * COLUMNS] = (float)from[j] * scale[j];
    }
    for (size_t i = run % 4; i; i--, to += COLUMNS) *to = (float)*from++ * *scale++;
    return run;
}

static void read_b(const ek_weights *b, size_t k, size_t depth, size_t n, size_t columns, tiles *t) {
    for (size_t j = 0; j < COLUMNS; j++)
        for (size_t i = 0; i < depth;) {
            if (j < columns) i += read_run(b, k + i, depth - i, n + j, &t->b[i][j]);
            else t->b[i++][j] = 0.0f;
        }
}

/* SIDE columns, from b on, of the sums of SIDE rows. */
EK_INLINE void multiply(size_t depth, const float *const a[SIDE], const float *b, float (*sum)[COLUMNS], int add) {
    float s[SIDE][SIDE];
    const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) s[i][j] = add ? sum[i][j] : 0.0f;
    for (size_t k = 0; k < depth; k++, b += COLUMNS) {
        float x0 = *a0++, x1 = *a1++, x2 = *a2++, x3 = *a3++;
        EK_UNROLL
        for (int j = 0; j < SIDE; j++) s[0][j] += x0 * b[j], s[1][j] += x1 * b[j], s[2][j] += x2 * b[j], s[3][j] += x3 * b[j];
    }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) sum[i][j] = s[i][j];
}

/* Depths k … of SIDE rows of A; those past the last one are the last one again. */
static void find_rows(const ek_gemm *g, size_t row, size_t rows, size_t k, size_t depth, tiles *t, const float *a[SIDE]) {
    if (g->a.patches) EK_NAME(ek_gather)(&g->a, row, rows, k, depth, t->a, depth);
    for (size_t i = 0; i < SIDE; i++) {
        size_t there = ek_min(i, rows - 1);
        a[i] = g->a.patches ? t->a + there * depth : g->a.from.data + (row + there) * g->a.ld + k;
    }
}

static void finish_rows(const ek_gemm *g, const tiles *t, size_t row, size_t rows, size_t n, size_t columns) {
    if (!g->places.grid) {
        EK_NAME(ek_finish)(&g->finish, t->sum[0], COLUMNS, rows, row, 1, g->column + n, columns);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        EK_NAME(ek_finish)(&g->finish, t->sum[r], 0, 1, ek_place_of(&g->places, row + r), 0, g->column + n, columns);
}

/* The product's rows from `row` on, at most ROWS. */
static void run_rows(const ek_gemm *g, size_t row, size_t rows, tiles *t) {
    for (size_t n = 0; n < g->n; n += COLUMNS) {
        size_t columns = ek_min(COLUMNS, g->n - n), k = 0;
        do {
            size_t depth = ek_min(DEPTH, g->k - k);
            read_b(&g->b, k, depth, n, columns, t);
            for (size_t r = 0; r < rows; r += SIDE) {
                const float *a[SIDE];
                find_rows(g, row + r, ek_min(SIDE, rows - r), k, depth, t, a);
                for (size_t j = 0; j < ek_round_up(columns, SIDE); j += SIDE)
                    multiply(depth, a, t->b[0] + j, (float(*)[COLUMNS])(t->sum[r] + j), k > 0);
            }
            k += DEPTH;
        } while (k < g->k);
        finish_rows(g, t, row, rows, n, columns);
    }
}

typedef struct {
    const ek_gemm *g;
    tiles *tiles;
} job;

static void run_part(void *context, int index, int count) {
    const job *work = context;
    size_t from, to;
    ek_share(work->g->m, ROWS, index, count, &from, &to);
    for (size_t row = from; row < to; row += ROWS) run_rows(work->g, row, ek_min(ROWS, to - row), work->tiles + index);
}

void EK_NAME(ek_gemm)(const ek_gemm *g, ek_pool *pool, void *scratch) {
    job work = {g, scratch};
    if (g->m && g->n) ek_pool_run(pool, run_part, &work);
}
