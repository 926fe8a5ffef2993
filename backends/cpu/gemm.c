#include "gemm.h"

#include "gemm_pack.h"
#if defined(__aarch64__)
#define EK_BY_LANE 1 /* multiply-add takes one lane of a vector as the factor */
#else
#define EK_BY_LANE 0
#endif
#include "gemm_tile.h"

EK_TILE_TABLE(dot)

/* --- a whole tile of sums over all of K, finished in registers: with a short K, storing sums and reading them again would take as
 * long as the multiply-adds --- */

static int finishes_in_registers(const ek_gemm *g) {
    const ek_epilogue *e = &g->finish;
    if (e->add || e->pre || g->places.grid || g->column % 8) return 0;
    return e->kind == EK_CLAMP || e->kind == EK_SAVED_BITS;
}

enum { TILE_BYTES = EK_PANEL / 8 }; /* of a tile's row of a mask */

EK_INLINE void finish_sums(int backward, int mask, int stream, const ek_epilogue *e, ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS],
        size_t row, size_t column) {
    float *y = e->y + row * e->columns + column;
    const uint8_t *saved = backward ? (const uint8_t *)e->saved + row * e->mask_bytes + column / 8 : NULL;
    uint8_t *masks = mask ? e->mask + row * e->mask_bytes + column / 8 : NULL;
    size_t columns = e->columns, mask_bytes = e->mask_bytes;
    ek_vf low = ek_low_limit(e), high = ek_high_limit(e), top = ek_splat(e->high), bias[EK_TILE_VECTORS];
    EK_UNROLL
    for (int j = 0; j < EK_TILE_VECTORS; j++) bias[j] = e->bias ? ek_load(e->bias + column + j * EK_LANES) : (ek_vf){0};
    EK_UNROLL
    for (int i = 0; i < EK_TILE_ROWS; i++, y += columns) {
        uint32_t bits = 0;
        if (backward) memcpy(&bits, saved, TILE_BYTES), saved += mask_bytes;
        EK_UNROLL
        for (int j = 0; j < EK_TILE_VECTORS; j++) {
            ek_vf v = acc[i][j];
            if (backward) v = ek_select(ek_truth_of(bits >> j * EK_LANES), v, (ek_vf){0});
            else v = ek_between(v + bias[j], low, high);
            if (mask) bits |= ek_bits_of((v > 0.0f) & ~(v >= top)) << j * EK_LANES;
            if (stream) ek_stream(y + j * EK_LANES, v);
            else ek_store(y + j * EK_LANES, v);
        }
        if (mask) memcpy(masks, &bits, TILE_BYTES), masks += mask_bytes;
    }
}

static void dot_and_finish(size_t depth, const float *a, size_t lda, const float *b, size_t ldb, const float *ahead,
        const ek_epilogue *e, size_t row, size_t column) {
    ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS] = {0};
    ek_dot_sum(EK_TILE_ROWS, EK_TILE_VECTORS, depth, a, lda, b, ldb, ahead, acc);
    int stream = EK_STREAMS && e->stream;
    if (e->kind == EK_SAVED_BITS && stream) finish_sums(1, 0, EK_STREAMS, e, acc, row, column);
    else if (e->kind == EK_SAVED_BITS) finish_sums(1, 0, 0, e, acc, row, column);
    else if (e->mask && stream) finish_sums(0, 1, EK_STREAMS, e, acc, row, column);
    else if (e->mask) finish_sums(0, 1, 0, e, acc, row, column);
    else if (stream) finish_sums(0, 0, EK_STREAMS, e, acc, row, column);
    else finish_sums(0, 0, 0, e, acc, row, column);
}

/* A block of B, DEPTH × COLUMNS, stays in the second-level cache while the rows of A pass; a block of the result holds
 * partial sums where K needs several blocks. */
#if defined(EK_M7)
enum { ROWS = 28 * EK_TILE_ROWS };
#else
enum { ROWS = 34 * EK_TILE_ROWS };
#endif
enum { DEPTH = 384, BLOCK_B = 48 * 1024, LEAST_ROWS = 16 * EK_TILE_ROWS, COLUMNS_DEEP = 128, COLUMNS_SHALLOW = 512,
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

/* The result in chunks, numbered down the rows of a block of columns and then on to the next: a thread that goes on to the chunk below
 * has its block of B already. */
typedef struct {
    const ek_gemm *g;
    blocking s;
    float *scratch;
    size_t rows, down, across; /* of a chunk; chunks */
    ek_turns turns;
} job;

static job cut(const ek_gemm *g, size_t threads, void *scratch) {
    job work = {.g = g, .s = choose_blocks(g->k, g->n), .scratch = scratch};
    size_t panels = (g->n + EK_PANEL - 1) / EK_PANEL, parts = threads > 1 ? ek_parts(threads) : 1;
    work.across = (g->n + work.s.columns - 1) / work.s.columns;
    size_t fewest = g->k > work.s.depth ? (g->m + ROWS - 1) / ROWS : 1, most = g->m / LEAST_ROWS;
    work.down = ek_min((parts + work.across - 1) / work.across, most);
    if (work.down < fewest) work.down = fewest;
    if (work.down * work.across < parts && threads > 1 && g->column % 8 == 0) { /* few rows: fewer columns */
        size_t wide = panels * work.down / parts;
        work.s.columns = ek_min(work.s.columns, (wide ? wide : 1) * EK_PANEL);
        work.across = (g->n + work.s.columns - 1) / work.s.columns;
    }
    work.rows = ek_even(g->m, (g->m + work.down - 1) / work.down, EK_TILE_ROWS);
    work.down = (g->m + work.rows - 1) / work.rows;
    work.turns.parts = g->column % 8 ? work.down : work.down * work.across;
    return work;
}

/* Rows [m0, m1) of columns [n0, n0 + n); `has_b`: B's block is in its buffer. */
static void run_chunk(const job *work, float *a_buffer, size_t m0, size_t m1, size_t n0, size_t n, int has_b) {
    const ek_gemm *g = work->g;
    const blocking *s = &work->s;
    float *b_buffer = a_buffer + s->a, *c_buffer = b_buffer + s->b;
    size_t tile_rows = ek_even(m1 - m0, EK_TILE_ROWS, 1), k0 = 0;
    int direct = s->depth >= g->k && finishes_in_registers(g);
    do {
        size_t depth = ek_min(s->depth, g->k - k0);
        if (!has_b) pack_block(g, s, k0, n0, n, b_buffer);
        for (size_t row = m0; row < m1; row += tile_rows) {
            size_t rows = ek_min(tile_rows, m1 - row);
            const float *a = a_buffer;
            size_t lda = s->depth;
            if (g->a.patches) EK_NAME(ek_gather)(&g->a, row, rows, k0, depth, a_buffer, lda);
            else a = g->a.from.data + row * g->a.ld + k0, lda = g->a.ld;
            float *c = s->depth < g->k ? c_buffer + (row - m0) * s->columns : c_buffer;
            size_t steps = row + rows < m1 ? rows * lda / EK_LINE : 0; /* lines of the next tile's rows */
            size_t finished = direct && rows == EK_TILE_ROWS ? n / EK_PANEL * EK_PANEL : 0;
            for (size_t j = 0; j < n; j += EK_PANEL) {
                panel b = find_panel(g, s, b_buffer, k0, n0, j);
                size_t vectors = (ek_min(EK_PANEL, n - j) + EK_LANES - 1) / EK_LANES, asked = j / EK_PANEL * depth;
                const float *ahead = asked < steps ? a + rows * lda + asked * EK_LINE : a;
                if (j < finished) dot_and_finish(depth, a, lda, b.data, b.ld, ahead, &g->finish, row, g->column + n0 + j);
                else EK_NAME(ek_dot_tiles)[vectors - 1][rows - 1](depth, a, lda, b.data, b.ld, c + j, s->columns, k0 > 0, ahead);
            }
            if (k0 + depth >= g->k && finished < n)
                finish_rows(g, c + finished, s->columns, row, rows, n0 + finished, n - finished);
        }
        k0 += s->depth;
    } while (k0 < g->k);
}

static void run_part(void *context, int index, int count) {
    job *work = context;
    const ek_gemm *g = work->g;
    const blocking *s = &work->s;
    float *buffers = work->scratch + (size_t)index * (s->a + s->b + s->c);
    size_t packed = g->n, whole = g->column % 8 ? work->across : 1; /* threads may not share a byte of a mask */
    for (size_t chunk; ek_take(&work->turns, index, count, &chunk);) {
        size_t m0 = chunk % work->down * work->rows, m1 = ek_min(m0 + work->rows, g->m), n0 = chunk / work->down * s->columns;
        for (size_t i = 0; i < whole; i++, n0 += s->columns) {
            run_chunk(work, buffers, m0, m1, n0, ek_min(s->columns, g->n - n0), s->depth >= g->k && n0 == packed);
            packed = n0;
        }
    }
    ek_finished(&g->finish);
}

void EK_NAME(ek_gemm)(const ek_gemm *g, ek_pool *pool, void *scratch) {
    if (!g->m || !g->n) return;
    job work = cut(g, (size_t)ek_pool_threads(pool), scratch);
    ek_pool_run(pool, run_part, &work);
}
