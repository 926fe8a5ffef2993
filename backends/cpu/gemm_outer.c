#include "gemm.h"

#if defined(__aarch64__)
#define EK_BY_LANE 1
#else
#define EK_BY_LANE 0
#endif
#include "gemm_tile.h"

EK_TILE_TABLE(outer)

/* A block of dw, at most BLOCK_K × BLOCK_N, is summed in the cache over blocks of ROWS rows of A and dy. Each row
 * block is summed in registers from zero, which also keeps the rounding of long sums small. */
enum { BLOCK_K = 10 * EK_TILE_ROWS, BLOCK_N = 128, ROWS = 128, ROUND_K = EK_TILE_ROWS / 2 };

/* Up to this many elements, each thread sums all of dw over its share of the rows; above it, threads share out dw's
 * blocks. */
enum { SMALL = 16 * 1024 };

typedef struct {
    size_t k, n;               /* of a block */
    size_t a, dy, c, db, part; /* floats of the buffers */
    int by_rows;
} blocking;

static blocking choose_blocks(size_t m, size_t k, size_t n, size_t threads) {
    blocking s;
    s.by_rows = threads > 1 && k * n <= SMALL && m >= 64 * threads;
    s.n = ek_even(n, BLOCK_N, EK_PANEL);
    s.k = ek_even(k, BLOCK_K, EK_TILE_ROWS);
    size_t across = (n + s.n - 1) / s.n, down = (k + s.k - 1) / s.k;
    if (!s.by_rows && across * down < 4 * threads) { /* few blocks: as many for every thread */
        down = ek_round_up(down, threads);
        s.k = ek_round_up((k + down - 1) / down, ROUND_K);
    }
    s.a = ROWS * s.k + EK_LANES;
    s.dy = ROWS * s.n;
    s.c = s.k * s.n;
    s.db = s.n;
    s.part = s.by_rows ? ek_round_up((k + 1) * n, 16) : 0;
    return s;
}

static size_t buffer_floats(const blocking *s) { return ek_round_up(s->a + s->dy + s->c + s->db + s->part, 16); }

size_t EK_NAME(ek_outer_gemm_scratch)(size_t m, size_t k, size_t n, int threads) {
    blocking s = choose_blocks(m, k, n, (size_t)threads);
    return buffer_floats(&s) * sizeof(float) * (size_t)threads;
}

typedef struct {
    const ek_outer_gemm *g;
    blocking s;
    float *scratch;
} job;

/* The rows of dy as whole vectors, with zeros past n. */
static void copy_dy(const float *dy, size_t ld, size_t rows, size_t n, float *to, size_t to_ld) {
    for (size_t r = 0; r < rows; r++, dy += ld, to += to_ld) {
        for (size_t j = 0; j < to_ld; j += EK_LANES) {
            int left = n > j ? (int)ek_min(n - j, EK_LANES) : 0;
            ek_store(to + j, left == EK_LANES ? ek_load(dy + j) : left ? ek_load_part(dy + j, left) : (ek_vf){0});
        }
    }
}

static void sum_rows(const float *dy, size_t ld, size_t rows, size_t n, float *db, int add) {
    for (size_t j = 0; j < n; j += EK_LANES) {
        ek_vf sum = {0};
        for (size_t r = 0; r < rows; r++) sum += ek_load(dy + r * ld + j);
        ek_store(db + j, add ? ek_load(db + j) + sum : sum);
    }
}

/* Line `number` of the block of rows from m to m_to: dy's lines, then A's; past them, what is there already. Tiles of the block before
 * it ask for a line a row. */
static const float *next_line(const ek_outer_gemm *g, size_t m, size_t m_to, size_t k0, size_t n0, size_t number, const float *there) {
    size_t rows = m < m_to ? ek_min(ROWS, m_to - m) : 0, dy = rows * g->dy_ld / EK_LINE, a = rows * g->a.ld / EK_LINE;
    if (number < dy) return g->dy + m * g->dy_ld + n0 + number * EK_LINE;
    return number < dy + a ? g->a.from.data + m * g->a.ld + k0 + (number - dy) * EK_LINE : there;
}

/* dw[k0 …, n0 …] from rows [m_from, m_to); into `dw`, whose rows are `ld` apart; db with the first block of each
 * column. */
static void sum_block(const job *work, float *buffer, size_t m_from, size_t m_to, size_t k0, size_t n0, float *dw,
        size_t ld, float *db) {
    const ek_outer_gemm *g = work->g;
    const blocking *s = &work->s;
    size_t depth = ek_min(s->k, g->k - k0), n = ek_min(s->n, g->n - n0), width = ek_round_up(n, EK_LANES);
    float *a_buffer = buffer, *dy_buffer = a_buffer + s->a, *c = dy_buffer + s->dy, *db_buffer = c + s->c;
    for (size_t m = m_from; m < m_to; m += ROWS) {
        size_t asked = 0;
        size_t rows = ek_min(ROWS, m_to - m), lda = g->a.ld, ld_dy = g->dy_ld;
        const float *a = g->a.from.data + m * lda + k0, *dy = g->dy + m * ld_dy + n0;
        if (g->a.patches || lda > 2 * depth) {
            EK_NAME(ek_gather)(&g->a, m, rows, k0, depth, a_buffer, depth);
            a = a_buffer, lda = depth;
        }
        if (n % EK_LANES || ld_dy > 2 * n) {
            copy_dy(dy, ld_dy, rows, n, dy_buffer, width);
            dy = dy_buffer, ld_dy = width;
        }
        if (db && k0 == 0) sum_rows(dy, ld_dy, rows, width, db_buffer, m > m_from);
        for (size_t i = 0; i < depth; i += EK_TILE_ROWS) {
            size_t tile = ek_min(EK_TILE_ROWS, depth - i);
            for (size_t j = 0; j < n; j += EK_PANEL) {
                size_t vectors = (ek_min(EK_PANEL, n - j) + EK_LANES - 1) / EK_LANES;
                EK_NAME(ek_outer_tiles)[vectors - 1][tile - 1](rows, a + i, lda, dy + j, ld_dy, c + i * s->n + j, s->n,
                        m > m_from, next_line(g, m + ROWS, m_to, k0, n0, asked, dy));
                asked += rows;
            }
        }
    }
    for (size_t i = 0; i < depth; i++) memcpy(dw + (k0 + i) * ld + n0, c + i * s->n, n * sizeof *c);
    if (db && k0 == 0) memcpy(db + n0, db_buffer, n * sizeof *db);
}

static float *part_of(const job *work, int index) {
    const blocking *s = &work->s;
    return work->scratch + (size_t)index * buffer_floats(s) + s->a + s->dy + s->c + s->db;
}

static void sum_my_rows(void *context, int index, int count) {
    const job *work = context;
    const ek_outer_gemm *g = work->g;
    float *buffer = work->scratch + (size_t)index * buffer_floats(&work->s), *part = part_of(work, index);
    size_t from, to;
    ek_share(g->m, 1, index, count, &from, &to);
    for (size_t k = 0; k < g->k; k += work->s.k)
        for (size_t n = 0; n < g->n; n += work->s.n) sum_block(work, buffer, from, to, k, n, part, g->n, part
                + g->k * g->n);
}

static void add_parts(void *context, int index, int count) {
    const job *work = context;
    const ek_outer_gemm *g = work->g;
    size_t from, to;
    ek_share(g->k + (g->db != NULL), 1, index, count, &from, &to);
    for (size_t i = from; i < to; i++) {
        float *out = i < g->k ? g->dw + i * g->dw_ld : g->db;
        for (size_t j = 0; j < g->n; j++) {
            float sum = part_of(work, 0)[i * g->n + j];
            for (int t = 1; t < count; t++) sum += part_of(work, t)[i * g->n + j];
            out[j] = sum;
        }
    }
}

static void sum_my_blocks(void *context, int index, int count) {
    const job *work = context;
    const ek_outer_gemm *g = work->g;
    const blocking *s = &work->s;
    float *buffer = work->scratch + (size_t)index * buffer_floats(s);
    size_t across = (g->n + s->n - 1) / s->n, down = (g->k + s->k - 1) / s->k, from, to;
    ek_share(across * down, 1, index, count, &from, &to);
    for (size_t i = from; i < to; i++)
        sum_block(work, buffer, 0, g->m, i / across * s->k, i % across * s->n, g->dw, g->dw_ld, g->db);
}

void EK_NAME(ek_outer_gemm)(const ek_outer_gemm *g, ek_pool *pool, void *scratch) {
    job work = {g, choose_blocks(g->m, g->k, g->n, (size_t)ek_pool_threads(pool)), scratch};
    if (!work.s.by_rows) {
        ek_pool_run(pool, sum_my_blocks, &work);
        return;
    }
    ek_pool_run(pool, sum_my_rows, &work);
    ek_pool_run(pool, add_parts, &work);
}
