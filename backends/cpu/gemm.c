#include "gemm.h"

#include "gemm_few.h"
#include "gemm_pack.h"
#include "gemm_rows.h"
#include "gemm_tile.h"

EK_TILE_TABLE(dot)

/* --- a whole tile, finished in registers: with a short K, storing sums and reading them again would take as long as the
 * multiply-adds --- */

static int finishes_in_registers(const ek_gemm *g) {
    const ek_epilogue *e = &g->finish;
    if (e->pre || g->places.grid || g->column % 8 || (e->add && e->mask)) return 0;
    return e->kind == EK_CLAMP || (e->kind == EK_SAVED_BITS && !e->add);
}

enum { TILE_BYTES = EK_PANEL / 8 }; /* of a tile's row of a mask */

EK_INLINE void finish_sums(int backward, int mask, int add, int stream, const ek_epilogue *e,
        ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS], size_t row, size_t column) {
    float *y = e->y + row * e->columns + column;
    const float *addend = add ? e->add + row * e->columns + column : NULL;
    const uint8_t *saved = backward ? (const uint8_t *)e->saved + row * e->mask_bytes + column / 8 : NULL;
    uint8_t *masks = mask ? e->mask + row * e->mask_bytes + column / 8 : NULL;
    size_t columns = e->columns, mask_bytes = e->mask_bytes;
    EK_UNROLL
    for (int j = 0; j < EK_TILE_VECTORS && !backward; j++) {
        ek_vf bias = e->bias ? ek_load(e->bias + column + j * EK_LANES) : (ek_vf){0};
        EK_UNROLL
        for (int i = 0; i < EK_TILE_ROWS; i++) acc[i][j] += bias;
    }
    ek_vf low = ek_low_limit(e), high = ek_high_limit(e), top = ek_splat(e->high);
    EK_UNROLL
    for (int i = 0; i < EK_TILE_ROWS; i++, y += columns) {
        uint32_t bits = 0;
        if (backward) memcpy(&bits, saved, TILE_BYTES), saved += mask_bytes;
        EK_UNROLL
        for (int j = 0; j < EK_TILE_VECTORS; j++) {
            ek_vf v = acc[i][j];
            if (backward) v = ek_select(ek_truth_of(bits >> j * EK_LANES), v, (ek_vf){0});
            else v = ek_between(add ? v + ek_load(addend + j * EK_LANES) : v, low, high);
            if (mask) bits |= ek_bits_of((v > 0.0f) & ~(v >= top)) << j * EK_LANES;
            if (stream) ek_stream(y + j * EK_LANES, v);
            else ek_store(y + j * EK_LANES, v);
        }
        if (mask) memcpy(masks, &bits, TILE_BYTES), masks += mask_bytes;
        if (add) addend += columns;
    }
}

/* `sums`: of the blocks of K before this one, or NULL. */
static void dot_and_finish(const tile_rows_of_a *rows, const float *b, const float *sums, size_t ldc, const float *ahead,
        const ek_epilogue *e, size_t row, size_t column) {
    ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS] = {0};
    if (sums) ek_tile_load(EK_TILE_ROWS, EK_TILE_VECTORS, acc, sums, ldc);
    const float *a = rows->data;
    size_t lda = rows->ld, depth = rows->depth;
    for (size_t left = rows->segments; left; left--, a += rows->next, b += depth * EK_PANEL, ahead += depth * EK_LINE)
        ek_dot_sum(EK_TILE_ROWS, EK_TILE_VECTORS, depth, a, lda, b, EK_PANEL, ahead, EK_LINE, acc);
#define FINISH(backward, mask, add) \
    if (EK_STREAMS && e->stream) finish_sums(backward, mask, add, EK_STREAMS, e, acc, row, column); \
    else finish_sums(backward, mask, add, 0, e, acc, row, column)
    if (e->kind == EK_SAVED_BITS) { FINISH(1, 0, 0); }
    else if (e->mask) { FINISH(0, 1, 0); }
    else if (e->add) { FINISH(0, 0, 1); }
    else { FINISH(0, 0, 0); }
#undef FINISH
}

/* A block of B, DEPTH × COLUMNS, stays in the second-level cache while the rows of A pass; a block of the result holds
 * partial sums where K needs several blocks. */
enum { ROWS = 34 * EK_TILE_ROWS, DEPTH = 384, BLOCK_B = 48 * 1024, LEAST_ROWS = 16 * EK_TILE_ROWS, COLUMNS_DEEP = 128, COLUMNS_SHALLOW = 512,
        PACK_ROWS = 16 };

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

size_t EK_NAME(ek_gemm_scratch)(size_t m, size_t k, size_t n, int threads) {
    blocking s = choose_blocks(k, n);
    return ek_max((s.a + s.b + s.c) * sizeof(float) * (size_t)threads, EK_NAME(ek_gemm_few_scratch)(m, k, threads));
}

static void finish_rows(const ek_gemm *g, const float *c, size_t ldc, size_t row, size_t rows, size_t n0, size_t n) {
    if (!g->places.grid) EK_NAME(ek_finish)(&g->finish, c, ldc, rows, row, 1, g->column + n0, n);
    else for (size_t r = 0; r < rows; r++) EK_NAME(ek_finish)(&g->finish, c + r * ldc, 0, 1, ek_place_of(&g->places,
            row + r), 0, g->column + n0, n);
}

/* Where a panel of a block of B lies: packed once for all, or in this thread's buffer. */
static const float *find_panel(const ek_gemm *g, const blocking *s, const float *buffer, size_t k0, size_t n0, size_t j) {
    size_t depth = ek_min(s->depth, g->k - k0);
    return g->packed ? g->packed + (n0 + j) * g->k + k0 * EK_PANEL : buffer + j * depth;
}

static void pack_block(const ek_gemm *g, const blocking *s, size_t k0, size_t n0, size_t n, float *buffer) {
    size_t depth = ek_min(s->depth, g->k - k0);
    if (g->packed) return;
    /* Along the weight's rows, which are read in long runs: a few rows of all panels at a time, or panel by panel. */
    size_t most = g->b.by_n == 1 ? PACK_ROWS : depth;
    for (size_t k = 0; k < depth; k += most) {
        size_t rows = ek_min(most, depth - k);
        for (size_t j = 0; j < n; j += EK_PANEL)
            EK_NAME(ek_pack_panel)(&g->b, k0 + k, rows, n0 + j, ek_min(EK_PANEL, n - j), buffer + j * depth + k * EK_PANEL);
    }
}

/* The part of the weight that the next block of B is made from: runs of neighbours, asked for while the tiles of this block are computed,
 * some lines with each. */
typedef struct {
    const float *run;
    ptrdiff_t stride;                  /* of runs */
    size_t runs, lines, line, portion; /* left; of a run; the next one of this run; to ask for with a tile */
} next_block;

/* The block at row k0 and column n0 of B, asked for with `tiles` tiles; none past B's end. */
static next_block find_next(const ek_gemm *g, const blocking *s, size_t k0, size_t n0, size_t tiles) {
    const ek_weights *b = &g->b;
    if (!EK_ASKS || g->packed || b->depth != g->k || n0 >= g->n) return (next_block){0};
    size_t depth = ek_min(s->depth, g->k - k0), n = ek_min(s->columns, g->n - n0);
    next_block next = {.run = b->from.data + (ptrdiff_t)k0 * b->by_k + (ptrdiff_t)n0 * b->by_n};
    next.stride = b->by_n == 1 ? b->by_k : b->by_n;
    next.runs = b->by_n == 1 ? depth : n;
    next.lines = ((b->by_n == 1 ? n : depth) + EK_LINE - 1) / EK_LINE;
    next.portion = (next.lines * next.runs + tiles - 1) / tiles;
    return next;
}

static void ask_for(next_block *next) {
    for (size_t i = 0; i < next->portion && next->runs; i++) {
        ek_ahead_line(next->run + next->line * EK_LINE);
        if (++next->line == next->lines) next->line = 0, next->runs--, next->run += next->stride;
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
    size_t tiles = (m1 - m0 + tile_rows - 1) / tile_rows * ((n + EK_PANEL - 1) / EK_PANEL);
    int direct = finishes_in_registers(g);
    int plain_taps = direct && s->depth >= g->k && n % EK_PANEL == 0 && has_plain_taps(g);
    grid_line line = {0};
    do {
        size_t depth = ek_min(s->depth, g->k - k0);
        int last = k0 + depth >= g->k;
        next_block next = last ? find_next(g, s, 0, m1 < g->m ? g->n : n0 + n, tiles) : find_next(g, s, k0 + depth, n0, tiles);
        if (!has_b) pack_block(g, s, k0, n0, n, b_buffer);
        for (size_t row = m0; row < m1; row += tile_rows) {
            size_t rows = ek_min(tile_rows, m1 - row);
            tile_rows_of_a a = find_rows(g, plain_taps ? &line : NULL, row, rows, k0, depth, a_buffer, s->depth);
            float *c = s->depth < g->k ? c_buffer + (row - m0) * s->columns : c_buffer;
            size_t steps = row + rows < m1 ? rows * a.ld / EK_LINE : 0; /* lines of the next tile's rows */
            size_t finished = direct && last && rows == EK_TILE_ROWS ? n / EK_PANEL * EK_PANEL : 0;
            for (size_t j = 0; j < n; j += EK_PANEL) {
                const float *b = find_panel(g, s, b_buffer, k0, n0, j);
                size_t vectors = (ek_min(EK_PANEL, n - j) + EK_LANES - 1) / EK_LANES, asked = j / EK_PANEL * depth;
                const float *ahead = asked < steps ? a.data + rows * a.ld + asked * EK_LINE : a.data;
                ask_for(&next);
                if (j < finished)
                    dot_and_finish(&a, b, k0 > 0 ? c + j : NULL, s->columns, ahead, &g->finish, row, g->column + n0 + j);
                else EK_NAME(ek_dot_tiles)[vectors - 1][rows - 1](depth, a.data, a.ld, b, EK_PANEL, c + j, s->columns, k0 > 0, ahead, EK_LINE);
            }
            if (last && finished < n) finish_rows(g, c + finished, s->columns, row, rows, n0 + finished, n - finished);
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
    if (EK_NAME(ek_gemm_is_few)(g)) {
        EK_NAME(ek_gemm_few)(g, pool, scratch);
        return;
    }
    job work = cut(g, (size_t)ek_pool_threads(pool), scratch);
    ek_pool_run(pool, run_part, &work);
}
