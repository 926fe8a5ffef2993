#include "gemm.h"
#include "gemm_tile.h"
#include "tails.h"

EK_TILE_TABLE(outer)

/* A block of dw, at most BLOCK_K × BLOCK_N, is summed in the cache over blocks of ROWS rows of A and dy. Each row block is summed in
 * registers from zero, which also keeps the rounding of long sums small. Up to WHOLE rows are one block: a tile then is a part of dw as
 * soon as it is summed, and goes there (or makes its step) from registers. */
enum { BLOCK_K = 120 / EK_TILE_ROWS * EK_TILE_ROWS, BLOCK_N = 288, ROWS = 96, WHOLE = 512 };

/* So few that dy, of FEW_SIDE columns, stays in the caches while rows of dw pass. */
enum { FEW = 16, FEW_SIDE = 1024 };

/* What is read by more tiles than this is copied first, tile by tile: rows that lie a power of two apart would push each other out
 * of the first-level cache. */
enum { REREAD = 6 };

/* Up to this many elements, each thread sums all of dw over its share of the rows; above it, threads share out dw's
 * blocks. */
enum { SMALL = 16 * 1024 };

typedef struct {
    size_t rows, k, n;              /* of a block */
    size_t a_rows, a, dy, c, part;  /* floats of the buffers */
    int by_rows;
} blocking;

/* Tiles of the thread that has most, where dw is cut into `down` × `across` blocks. */
static size_t busiest(size_t k, size_t n, size_t down, size_t across, size_t threads) {
    size_t tall = ek_even(k, (k + down - 1) / down, EK_TILE_ROWS), wide = ek_even(n, (n + across - 1) / across, EK_PANEL);
    return (down * across + threads - 1) / threads * (tall / EK_TILE_ROWS) * (wide / EK_PANEL);
}

/* With few rows, dw or the parameter is what takes the time to read and write: whole rows of it, in the order in which they lie there. */
static blocking few_blocks(size_t m, size_t k, size_t n, size_t threads) {
    size_t parts = threads > 1 ? ek_parts(threads) : 1, share = (k + parts - 1) / parts;
    blocking s = {.rows = m, .n = ek_even(n, FEW_SIDE, EK_PANEL), .k = ek_even(k, ek_min(share, FEW_SIDE), EK_TILE_ROWS)};
    s.a_rows = ek_round_up(m * s.k + EK_LANES, 16), s.dy = m * EK_PANEL;
    return s;
}

static blocking choose_blocks(size_t m, size_t k, size_t n, size_t threads) {
    blocking s;
    if (m <= FEW) return few_blocks(m, k, n, threads);
    s.by_rows = threads > 1 && k * n <= SMALL && m >= 64 * threads;
    size_t least_down = (k + BLOCK_K - 1) / BLOCK_K, least_across = (n + BLOCK_N - 1) / BLOCK_N;
    size_t down = least_down, across = least_across, sharing = s.by_rows ? 1 : threads, best = SIZE_MAX;
    for (size_t i = least_down; i < least_down + sharing; i++)
        for (size_t j = least_across; j < least_across + sharing; j++) {
            size_t tiles = busiest(k, n, i, j, sharing);
            if (tiles < best) down = i, across = j, best = tiles;
        }
    s.k = ek_even(k, (k + down - 1) / down, EK_TILE_ROWS);
    s.n = ek_even(n, (n + across - 1) / across, EK_PANEL);
    s.rows = s.by_rows || m > WHOLE ? ROWS : m;
    s.a_rows = s.a = ek_round_up(s.rows * s.k + EK_LANES, 16);
    s.dy = s.rows * EK_PANEL;
    s.c = s.rows < m ? s.k * s.n : 0;
    s.part = s.by_rows ? ek_round_up((k + 1) * n, 16) : 0;
    return s;
}

static size_t buffer_floats(const blocking *s) { return ek_round_up(s->a_rows + s->a + s->dy + s->c + s->part, 16); }

size_t EK_NAME(ek_outer_gemm_scratch)(size_t m, size_t k, size_t n, int threads) {
    blocking s = choose_blocks(m, k, n, (size_t)threads);
    return buffer_floats(&s) * sizeof(float) * (size_t)threads;
}

typedef struct {
    const ek_outer_gemm *g;
    blocking s;
    float *scratch;
    ek_turns turns; /* blocks of dw */
} job;

/* Rows of a matrix in tiles of some columns: rows are `ld` apart, tiles `step`. */
typedef struct {
    const float *data;
    size_t ld, step;
} tiles;

/* A panel of dy, EK_PANEL columns with zeros past n. */
static const float *pack_dy(const float *dy, size_t ld, size_t rows, size_t n, float *packed) {
    float *to = packed;
    for (size_t r = 0; r < rows; r++, dy += ld, to += EK_PANEL)
        EK_UNROLL
        for (size_t v = 0; v < EK_PANEL; v += EK_LANES) {
            size_t left = n > v ? n - v : 0;
            ek_store(to + v, left >= EK_LANES ? ek_load(dy + v) : left ? ek_load_part(dy + v, (int)left) : (ek_vf){0});
        }
    return packed;
}

/* Whole vectors that hold a tile's row; what they hold besides is written over by the next row. */
enum { ROW_FLOATS = (EK_TILE_ROWS + EK_LANES - 1) / EK_LANES * EK_LANES };

/* A by tiles of EK_TILE_ROWS columns, one after the other; what lies past `depth` is not written. */
static tiles pack_a(const tiles *a, size_t rows, size_t depth, float *to) {
    tiles packed = {to, EK_TILE_ROWS, rows * EK_TILE_ROWS};
    for (size_t i = 0; i < depth; i += EK_TILE_ROWS) {
        const float *row = a->data + i;
        size_t left = depth - i;
        if (left >= ROW_FLOATS) {
            for (size_t r = 0; r < rows; r++, row += a->ld, to += EK_TILE_ROWS) {
                EK_UNROLL
                for (int v = 0; v < ROW_FLOATS; v += EK_LANES) ek_store(to + v, ek_load(row + v));
            }
            continue;
        }
        for (size_t r = 0; r < rows; r++, row += a->ld, to += EK_TILE_ROWS)
            for (size_t c = 0; c < ek_min(left, EK_TILE_ROWS); c++) to[c] = row[c];
    }
    return packed;
}

/* A panel's columns summed, whole vectors; added to `db` or not. */
static void sum_rows(const float *dy, size_t ld, size_t rows, size_t n, float *db, int add) {
    for (size_t j = 0; j < n; j += EK_LANES) {
        ek_vf sum = {0};
        int left = (int)ek_min(n - j, EK_LANES);
        for (size_t r = 0; r < rows; r++) sum += ek_load(dy + r * ld + j);
        ek_store_n(db + j, add ? ek_load_n(db + j, left) + sum : sum, left);
    }
}

/* Line `number` of the block of rows from m to m_to: dy's lines, then A's; past them, what is there already. Tiles of the block before
 * it ask for a line a row. */
static const float *next_line(const ek_outer_gemm *g, size_t m, size_t m_to, size_t k0, size_t n0, size_t number, const float *there) {
    size_t rows = m < m_to ? ek_min(ROWS, m_to - m) : 0, dy = rows * g->dy_ld / EK_LINE, a = rows * g->a.ld / EK_LINE;
    if (number < dy) return g->dy + m * g->dy_ld + n0 + number * EK_LINE;
    return number < dy + a ? g->a.from.data + m * g->a.ld + k0 + (number - dy) * EK_LINE : there;
}

enum { AHEAD = 4 }; /* rows of a parameter, asked for before their turn */

/* A row of sums from column n0 on: dw's, or what a step makes of them. */
static __attribute__((noinline)) void store_row(const ek_outer_gemm *g, size_t k, size_t n0, size_t n, const float *sums) {
    size_t at = k * g->dw_ld + n0;
    if (!g->step) {
        memcpy(g->dw + at, sums, n * sizeof *sums);
        return;
    }
    ek_sgd_row step = *g->step;
    step.grad = sums;
    for (size_t i = 0; i < n && k + AHEAD < g->k; i += EK_LINE) ek_ahead_line(g->dw + at + AHEAD * g->dw_ld + i);
    if (step.velocity) step.velocity += at;
    if (step.factor) step.factor += n0;
    if (step.offset) step.offset += n0;
    EK_NAME(ek_sgd_steps)(&step, g->dw + at, n);
}

/* --- a tile that is summed over all rows --- */

/* A whole tile's plain step; `factor`: of its columns, or NULL. */
static void sum_and_step(size_t rows, const float *a, size_t lda, const float *dy, size_t ld, const ek_sgd_row *step,
        const float *factor, float *w, size_t w_ld, const float *ahead) {
    ek_vf acc[EK_TILE_ROWS][EK_TILE_VECTORS] = {0};
    ek_outer_sum(EK_TILE_ROWS, EK_TILE_VECTORS, rows, a, lda, dy, ld, ahead, EK_LINE, acc);
    float clip = step->clip, lr = step->lr;
    EK_UNROLL
    for (int i = 0; i < EK_TILE_ROWS; i++, w += w_ld) {
        EK_UNROLL
        for (int j = 0; j < EK_TILE_VECTORS; j++) {
            float *at = w + j * EK_LANES;
            ek_store(at, ek_plain_step(ek_load(at), acc[i][j], factor ? factor + j * EK_LANES : NULL, clip, lr));
        }
    }
}

/* dw[k …, n …], at most a tile of it, from its sums. */
static void store_tile(const ek_outer_gemm *g, size_t k, size_t n, const float *sums) {
    size_t columns = ek_min(EK_PANEL, g->n - n);
    for (size_t i = k; i < ek_min(k + EK_TILE_ROWS, g->k); i++, sums += EK_PANEL) store_row(g, i, n, columns, sums);
}

static void finish_tile(const ek_outer_gemm *g, size_t rows, const float *a, size_t lda, const float *dy, size_t ld, size_t k, size_t n,
        const float *ahead) {
    size_t tall = ek_min(EK_TILE_ROWS, g->k - k), wide = ek_min(EK_PANEL, g->n - n);
    float *w = g->dw + k * g->dw_ld + n, sums[EK_TILE_ROWS * EK_PANEL];
    int whole = tall == EK_TILE_ROWS && wide == EK_PANEL;
    if (whole && g->step && ek_is_plain(g->step)) {
        sum_and_step(rows, a, lda, dy, ld, g->step, g->step->factor ? g->step->factor + n : NULL, w, g->dw_ld, ahead);
        return;
    }
    int direct = whole && !g->step;
    EK_NAME(ek_outer_tiles)[(wide + EK_LANES - 1) / EK_LANES - 1][tall - 1](rows, a, lda, dy, ld, direct ? w : sums,
            direct ? g->dw_ld : EK_PANEL, 0, ahead, EK_LINE);
    if (!direct) store_tile(g, k, n, sums);
}

/* The part of a parameter that a tile steps, asked for before: a tile later it is there. */
static void ask_for_tile(const ek_outer_gemm *g, size_t k, size_t n) {
    for (size_t i = k; EK_ASKS && g->step && i < ek_min(k + EK_TILE_ROWS, g->k); i++) {
        ek_ahead_line(g->dw + i * g->dw_ld + n);
        if (g->step->velocity) ek_ahead_line(g->step->velocity + i * g->dw_ld + n);
    }
}

/* dw[k0 …, n0 …] row by row, from all rows. */
static void sum_few_rows(const ek_outer_gemm *g, const tiles *a, size_t k0, size_t depth, size_t n0, size_t n, float *dy_panel, float *db) {
    for (size_t i = 0; i < depth; i += EK_TILE_ROWS) {
        for (size_t j = 0; j < n; j += EK_PANEL) {
            const float *dy = g->dy + n0 + j;
            size_t ld = g->dy_ld, wide = ek_min(EK_PANEL, n - j);
            if (wide % EK_LANES) dy = pack_dy(dy, ld, g->m, wide, dy_panel), ld = EK_PANEL;
            if (db && k0 + i == 0) sum_rows(dy, ld, g->m, wide, db + n0 + j, 0);
            ask_for_tile(g, k0 + i + EK_TILE_ROWS, n0 + j);
            finish_tile(g, g->m, a->data + i, a->ld, dy, ld, k0 + i, n0 + j, dy);
        }
    }
}

/* dw[k0 …, n0 …] from rows [m_from, m_to), whose sums are stored in dw where all rows are one block; else returned, rows s.n apart. db with
 * the first block of each column. */
static const float *sum_block(const job *work, float *buffer, size_t m_from, size_t m_to, size_t k0, size_t n0, float *db) {
    const ek_outer_gemm *g = work->g;
    const blocking *s = &work->s;
    size_t depth = ek_min(s->k, g->k - k0), n = ek_min(s->n, g->n - n0);
    float *a_rows = buffer, *a_tiles = a_rows + s->a_rows, *dy_panel = a_tiles + s->a, *c = dy_panel + s->dy;
    for (size_t m = m_from; m < m_to; m += s->rows) {
        size_t asked = 0, rows = ek_min(s->rows, m_to - m);
        tiles a = {g->a.from.data + m * g->a.ld + k0, g->a.ld, EK_TILE_ROWS};
        if (g->a.patches) {
            EK_NAME(ek_gather)(&g->a, m, rows, k0, depth, a_rows, depth);
            a.data = a_rows, a.ld = depth;
        }
        if (g->m <= FEW) {
            sum_few_rows(g, &a, k0, depth, n0, n, dy_panel, db);
            return c;
        }
        if (n > REREAD * EK_PANEL) a = pack_a(&a, rows, depth, a_tiles);
        for (size_t j = 0; j < n; j += EK_PANEL) {
            const float *dy = g->dy + m * g->dy_ld + n0 + j;
            size_t ld = g->dy_ld, wide = ek_min(EK_PANEL, n - j);
            if (depth > REREAD * EK_TILE_ROWS || wide % EK_LANES) dy = pack_dy(dy, ld, rows, wide, dy_panel), ld = EK_PANEL;
            if (db && k0 == 0) sum_rows(dy, ld, rows, wide, db + n0 + j, m > m_from);
            for (size_t i = 0; i < depth; i += EK_TILE_ROWS, asked += rows) {
                const float *tile = a.data + i / EK_TILE_ROWS * a.step, *ahead = next_line(g, m + s->rows, m_to, k0, n0, asked, dy);
                if (!s->c) {
                    ask_for_tile(g, k0 + i + EK_TILE_ROWS, n0 + j);
                    finish_tile(g, rows, tile, a.ld, dy, ld, k0 + i, n0 + j, ahead);
                    continue;
                }
                EK_NAME(ek_outer_tiles)[(wide + EK_LANES - 1) / EK_LANES - 1][ek_min(EK_TILE_ROWS, depth - i) - 1](rows, tile, a.ld, dy, ld,
                        c + i * s->n + j, s->n, m > m_from, ahead, EK_LINE);
            }
        }
    }
    return c;
}

static float *part_of(const job *work, int index) {
    const blocking *s = &work->s;
    return work->scratch + (size_t)index * buffer_floats(s) + s->a_rows + s->a + s->dy + s->c;
}

static void sum_my_rows(void *context, int index, int count) {
    const job *work = context;
    const ek_outer_gemm *g = work->g;
    float *buffer = work->scratch + (size_t)index * buffer_floats(&work->s), *part = part_of(work, index);
    size_t from, to;
    ek_share(g->m, 1, index, count, &from, &to);
    for (size_t k0 = 0; k0 < g->k; k0 += work->s.k)
        for (size_t n0 = 0; n0 < g->n; n0 += work->s.n) {
            const float *sums = sum_block(work, buffer, from, to, k0, n0, part + g->k * g->n);
            for (size_t k = k0; k < ek_min(k0 + work->s.k, g->k); k++, sums += work->s.n)
                memcpy(part + k * g->n + n0, sums, ek_min(work->s.n, g->n - n0) * sizeof *part);
        }
}

static __attribute__((minsize)) void add_parts(void *context, int index, int count) {
    const job *work = context;
    const ek_outer_gemm *g = work->g;
    size_t from, to;
    ek_share(g->k + (g->db != NULL), 1, index, count, &from, &to);
    for (size_t i = from; i < to; i++) {
        float *sums = part_of(work, 0) + i * g->n;
        for (size_t j = 0; j < g->n; j++)
            for (int t = 1; t < count; t++) sums[j] += part_of(work, t)[i * g->n + j];
        if (i < g->k) store_row(g, i, 0, g->n, sums);
        else memcpy(g->db, sums, g->n * sizeof *sums);
    }
}

static void sum_blocks(void *context, int index, int count) {
    job *work = context;
    const ek_outer_gemm *g = work->g;
    const blocking *s = &work->s;
    float *buffer = work->scratch + (size_t)index * buffer_floats(s);
    size_t across = (g->n + s->n - 1) / s->n;
    for (size_t i; ek_take(&work->turns, index, count, &i);) {
        size_t k0 = i / across * s->k, n0 = i % across * s->n;
        const float *sums = sum_block(work, buffer, 0, g->m, k0, n0, g->db);
        for (size_t k = k0; s->c && k < ek_min(k0 + s->k, g->k); k++, sums += s->n) store_row(g, k, n0, ek_min(s->n, g->n - n0), sums);
    }
}

void EK_NAME(ek_outer_gemm)(const ek_outer_gemm *g, ek_pool *pool, void *scratch) {
    job work = {.g = g, .s = choose_blocks(g->m, g->k, g->n, (size_t)ek_pool_threads(pool)), .scratch = scratch};
    if (!work.s.by_rows) {
        work.turns.parts = ((g->n + work.s.n - 1) / work.s.n) * ((g->k + work.s.k - 1) / work.s.k);
        ek_pool_run(pool, sum_blocks, &work);
        return;
    }
    ek_pool_run(pool, sum_my_rows, &work);
    ek_pool_run(pool, add_parts, &work);
}
