#include "gemm.h"

#include "gemm_pack.h"
#if defined(__aarch64__)
#define EK_BY_LANE 1 /* multiply-add takes one lane of a vector as the factor */
#else
#define EK_BY_LANE 0
#endif
#include "gemm_tile.h"

EK_TILE_TABLE(dot)

/* A block of B, DEPTH × COLUMNS, stays in the second-level cache while the rows of A pass; a block of the result holds
 * partial sums where K needs several blocks. */
enum { DEPTH = 384, BLOCK_B = 48 * 1024, ROWS = 28 * EK_TILE_ROWS, COLUMNS_DEEP = 128, COLUMNS_SHALLOW = 512,
        PACK_ROWS = 16 };

/* Rows and columns small enough that packing B would cost more than it saves: B is read where it lies. */
static int reads_b_in_place(size_t m) { return m <= 2 * EK_TILE_ROWS; }

typedef struct {
    size_t depth, rows, columns; /* of a block */
    size_t a, b, c;              /* floats of the buffers */
} blocking;

static blocking choose_blocks(size_t k, size_t n) {
    blocking s;
    s.depth = ek_even(k, DEPTH, 1);
    size_t columns = k <= DEPTH ? ek_min(BLOCK_B / s.depth, COLUMNS_SHALLOW) : COLUMNS_DEEP;
    columns = columns < EK_PANEL ? EK_PANEL : columns / EK_PANEL * EK_PANEL;
    s.columns = ek_even(n, columns, EK_PANEL);
    s.rows = k <= DEPTH ? EK_TILE_ROWS : ROWS;
    s.a = ek_round_up(EK_TILE_ROWS * s.depth + EK_LANES, 16);
    s.b = ek_round_up(s.depth * s.columns, 16);
    s.c = s.rows * s.columns;
    return s;
}

size_t EK_NAME(ek_gemm_scratch)(size_t k, size_t n, int threads) {
    blocking s = choose_blocks(k, n);
    return (s.a + s.b + s.c) * sizeof(float) * (size_t)threads;
}

static void finish_rows(const ek_gemm *g, const float *c, size_t ldc, size_t row, size_t rows, size_t n0, size_t n) {
    if (!g->places.grid) EK_NAME(ek_finish)(&g->finish, c, ldc, rows, row, 1, g->column + n0, n);
    else for (size_t r = 0; r < rows; r++) EK_NAME(ek_finish)(&g->finish, c + r * ldc, 0, 1, ek_place_of(&g->places,
            row + r), 0, g->column + n0, n);
}

/* Where a panel of a block of B lies: packed once for all, in this thread's buffer, or in the weight itself. */
typedef struct {
    const float *data;
    size_t ld;
} panel;

static panel find_panel(const ek_gemm *g, const blocking *s, const float *buffer, size_t k0, size_t n0, size_t j) {
    size_t depth = ek_min(s->depth, g->k - k0);
    if (g->packed) return (panel){g->packed + (n0 + j) * g->k + k0 * EK_PANEL, EK_PANEL};
    if (reads_b_in_place(g->m) && g->b.by_n == 1 && g->b.depth == g->k && n0 + j + EK_PANEL <= g->n)
        return (panel){g->b.from.data + (ptrdiff_t)k0 * g->b.by_k + n0 + j, (size_t)g->b.by_k};
    return (panel){buffer + j * depth, EK_PANEL};
}

static void pack_block(const ek_gemm *g, const blocking *s, size_t k0, size_t n0, size_t n, float *buffer) {
    size_t depth = ek_min(s->depth, g->k - k0);
    if (g->packed) return;
    /* A few rows of all panels at a time: the weight is then read in long runs. */
    for (size_t k = 0; k < depth; k += PACK_ROWS) {
        size_t rows = ek_min(PACK_ROWS, depth - k);
        for (size_t j = 0; j < n; j += EK_PANEL) {
            float *panel_buffer = buffer + j * depth;
            if (find_panel(g, s, buffer, k0, n0, j).data != panel_buffer) continue;
            EK_NAME(ek_pack_panel)(&g->b, k0 + k, rows, n0 + j, ek_min(EK_PANEL, n - j), panel_buffer + k * EK_PANEL);
        }
    }
}

typedef struct {
    const ek_gemm *g;
    blocking s;
    float *scratch;
    int by_columns;
} job;

static void run_part(void *context, int index, int count) {
    const job *work = context;
    const ek_gemm *g = work->g;
    const blocking *s = &work->s;
    float *a_buffer = work->scratch + (size_t)index * (s->a + s->b + s->c), *b_buffer = a_buffer + s->a,
            *c_buffer = b_buffer + s->b;
    size_t m_from = 0, m_to = g->m, n_from = 0, n_to = g->n;
    if (work->by_columns) ek_share(g->n, EK_PANEL, index, count, &n_from, &n_to);
    else ek_share(g->m, 1, index, count, &m_from, &m_to);
    if (m_from == m_to) return;
    size_t tile_rows = ek_even(ek_min(m_to - m_from, 4 * s->rows), EK_TILE_ROWS, 1);

    for (size_t n0 = n_from; n0 < n_to; n0 += s->columns) {
        size_t n = ek_min(s->columns, n_to - n0);
        if (s->depth >= g->k) pack_block(g, s, 0, n0, n, b_buffer);
        for (size_t m0 = m_from; m0 < m_to; m0 += s->rows / EK_TILE_ROWS * tile_rows) {
            size_t m1 = ek_min(m0 + s->rows / EK_TILE_ROWS * tile_rows, m_to), k0 = 0;
            do {
                size_t depth = ek_min(s->depth, g->k - k0);
                if (s->depth < g->k) pack_block(g, s, k0, n0, n, b_buffer);
                for (size_t row = m0; row < m1; row += tile_rows) {
                    size_t rows = ek_min(tile_rows, m1 - row);
                    const float *a = a_buffer;
                    size_t lda = s->depth;
                    if (g->a.patches) EK_NAME(ek_gather)(&g->a, row, rows, k0, depth, a_buffer, lda);
                    else a = g->a.from.data + row * g->a.ld + k0, lda = g->a.ld;
                    float *c = c_buffer + (row - m0) * s->columns;
                    size_t steps = row + rows < m_to ? rows * lda / EK_LINE : 0; /* lines of the next tile's rows */
                    for (size_t j = 0; j < n; j += EK_PANEL) {
                        panel b = find_panel(g, s, b_buffer, k0, n0, j);
                        size_t vectors = (ek_min(EK_PANEL, n - j) + EK_LANES - 1) / EK_LANES, asked = j / EK_PANEL * depth;
                        EK_NAME(ek_dot_tiles)[vectors - 1][rows - 1](depth, a, lda, b.data, b.ld, c + j, s->columns, k0 > 0,
                                asked < steps ? a + rows * lda + asked * EK_LINE : a);
                    }
                    if (k0 + depth >= g->k) finish_rows(g, c, s->columns, row, rows, n0, n);
                }
                k0 += s->depth;
            } while (k0 < g->k);
        }
    }
    ek_finished(&g->finish);
}

void EK_NAME(ek_gemm)(const ek_gemm *g, ek_pool *pool, void *scratch) {
    size_t threads = (size_t)ek_pool_threads(pool), panels = (g->n + EK_PANEL - 1) / EK_PANEL;
    job work = {g, choose_blocks(g->k, g->n), scratch, g->m < 8 * EK_TILE_ROWS * threads && panels >= 2 * threads
            && g->column == 0};
    if (g->m && g->n) ek_pool_run(pool, run_part, &work);
}
