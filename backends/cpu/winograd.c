#include "ahead.h"
#include "winograd.h"

#include "gemm_pack.h"

/* Points of the transform; rows of the filter that are transformed at a time. */
enum { POINTS = 16, PACK_ROWS = 16 };

/* Floats of the transformed filter that are there at a time, and of a thread's transformed pixels: for more columns the pixels are
 * transformed again, which costs less than the memory. */
#if defined(__aarch64__)
enum { FILTER = 128 * 1024, PIXELS = 64 * 1024 };
#else
enum { FILTER = 512 * 1024, PIXELS = 256 * 1024 };
#endif

/* How much is worked on at a time, and the floats of the buffers. Shared: the filter of `columns` columns, transformed,
 * [panel][point][k][EK_PANEL], and a pixel of zeros. Each thread's: the pixels of `tiles` tiles, transformed, [point][tile][k]; their
 * products with a panel, [point][tile][EK_PANEL]; the results, [2][2 tiles][EK_PANEL]. */
typedef struct {
    size_t columns, tiles;
    size_t filter, zeros, pixels, products, results;
} sizes;

static sizes sizes_of(size_t k, size_t n) {
    size_t columns = FILTER / (POINTS * k) / EK_PANEL * EK_PANEL, tiles = PIXELS / (POINTS * k) / EK_TILE_ROWS * EK_TILE_ROWS;
    sizes s = {.columns = ek_even(n, columns < EK_PANEL ? EK_PANEL : columns, EK_PANEL), .zeros = k};
    s.tiles = tiles < EK_TILE_ROWS ? EK_TILE_ROWS : ek_min(tiles, 4 * EK_TILE_ROWS);
    s.filter = POINTS * k * s.columns, s.pixels = POINTS * s.tiles * k;
    s.products = POINTS * s.tiles * EK_PANEL, s.results = 4 * s.tiles * EK_PANEL;
    return s;
}

static size_t own_floats(const sizes *s) {
    size_t packing = 9 * PACK_ROWS * EK_PANEL; /* while the filter is transformed */
    size_t work = s->pixels + s->products + s->results;
    return work > packing ? work : packing;
}

size_t EK_NAME(ek_winograd_scratch)(size_t k, size_t n, int threads) {
    sizes s = sizes_of(k, n);
    return (s.filter + s.zeros + own_floats(&s) * (size_t)threads) * sizeof(float);
}

typedef struct {
    const ek_winograd *g;
    sizes s;
    float *filter, *zeros, *own;
    size_t from, to; /* columns whose filter is there */
    ek_turns turns;  /* panels of the filter, then blocks of tiles */
} job;

/* One row of G g Gᵀ from three: (a, (a + b + c) / 2, (a - b + c) / 2, c). */
EK_INLINE void transform_three(ek_vf a, ek_vf b, ek_vf c, ek_vf to[4]) {
    ek_vf half = (a + c) * 0.5f, other = b * 0.5f;
    to[0] = a, to[1] = half + other, to[2] = half - other, to[3] = c;
}

/* `rows` rows of a panel of the filter: from taps[9][PACK_ROWS][EK_PANEL] to the points' panels, `point` floats apart. */
static void transform_filter(const float *taps, size_t rows, float *to, size_t point) {
    for (size_t at = 0; at < rows * EK_PANEL; at += EK_LANES) {
        ek_vf columns[3][4], u[4];
        EK_UNROLL
        for (int j = 0; j < 3; j++) {
            const float *tap = taps + j * PACK_ROWS * EK_PANEL + at;
            transform_three(ek_load(tap), ek_load(tap + 3 * PACK_ROWS * EK_PANEL), ek_load(tap + 6 * PACK_ROWS * EK_PANEL),
                    columns[j]);
        }
        EK_UNROLL
        for (int i = 0; i < 4; i++) {
            transform_three(columns[0][i], columns[1][i], columns[2][i], u);
            EK_UNROLL
            for (int j = 0; j < 4; j++) ek_store(to + (size_t)(4 * i + j) * point + at, u[j]);
        }
    }
}

static void filter_part(void *context, int index, int count) {
    job *work = context;
    const ek_winograd *g = work->g;
    float *taps = work->own + (size_t)index * own_floats(&work->s);
    size_t point = g->k * EK_PANEL;
    for (size_t panel; ek_take(&work->turns, index, count, &panel);) {
        size_t column = work->from + panel * EK_PANEL, columns = ek_min(EK_PANEL, g->n - column);
        for (size_t k = 0; k < g->k; k += PACK_ROWS) {
            size_t rows = ek_min(PACK_ROWS, g->k - k);
            for (size_t tap = 0; tap < 9; tap++)
                EK_NAME(ek_pack_panel)(&g->w, tap * g->k + k, rows, column, columns, taps + tap * PACK_ROWS * EK_PANEL);
            transform_filter(taps, rows, work->filter + panel * POINTS * point + k * EK_PANEL, point);
        }
    }
}

/* One row of Bᵀ d B from four. */
EK_INLINE void transform_four(const ek_vf d[4], ek_vf to[4]) {
    to[0] = d[0] - d[2], to[1] = d[1] + d[2], to[2] = d[2] - d[1], to[3] = d[1] - d[3];
}

void EK_NAME(ek_winograd_pixels)(const float *image, int height, int width, size_t k, int h, int w, const float *zeros, float *to,
        size_t point) {
    const float *pixel[4][4];
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            int inside = h + i >= 0 && h + i < height && w + j >= 0 && w + j < width;
            pixel[i][j] = inside ? image + ((ptrdiff_t)(h + i) * width + w + j) * (ptrdiff_t)k : zeros;
        }
    }
    for (size_t c = 0; c < k; c += EK_LANES) {
        ek_vf rows[4][4];
        EK_UNROLL
        for (int i = 0; i < 4; i++) {
            ek_vf d[4];
            EK_UNROLL
            for (int j = 0; j < 4; j++) d[j] = ek_load(pixel[i][j] + c);
            transform_four(d, rows[i]);
        }
        EK_UNROLL
        for (int j = 0; j < 4; j++) {
            ek_vf d[4] = {rows[0][j], rows[1][j], rows[2][j], rows[3][j]}, v[4];
            transform_four(d, v);
            EK_UNROLL
            for (int i = 0; i < 4; i++) ek_store(to + (size_t)(4 * i + j) * point + c, v[i]);
        }
    }
}

/* A tile's 2 × 2 results Aᵀ m A of a panel, the points of m `point` floats apart: two pixels at `above`, two at `below`. */
static void transform_products(const float *m, size_t point, float *above, float *below) {
    EK_UNROLL
    for (int at = 0; at < EK_PANEL; at += EK_LANES) {
        ek_vf first[4], second[4];
        EK_UNROLL
        for (int j = 0; j < 4; j++) {
            const float *column = m + (size_t)j * point + at;
            ek_vf a = ek_load(column), b = ek_load(column + 4 * point), c = ek_load(column + 8 * point),
                  d = ek_load(column + 12 * point);
            first[j] = a + b + c, second[j] = b - c - d;
        }
        ek_store(above + at, first[0] + first[1] + first[2]);
        ek_store(above + EK_PANEL + at, first[1] - first[2] - first[3]);
        ek_store(below + at, second[0] + second[1] + second[2]);
        ek_store(below + EK_PANEL + at, second[1] - second[2] - second[3]);
    }
}

/* Tiles [from, to). */
typedef struct {
    size_t from, to;
} block;

/* Results of one panel of columns: a row of tiles, or what the block has of it, at a time. */
static void finish_panel(const job *work, const block *b, const float *products, float *results, size_t column, size_t columns) {
    const ek_winograd *g = work->g;
    size_t point = work->s.tiles * EK_PANEL;
    for (size_t tile = b->from; tile < b->to;) {
        ek_winograd_place at = ek_winograd_find(tile, g->out_h, g->out_w);
        size_t h = (size_t)at.h, w = (size_t)at.w, run = ek_min(((size_t)g->out_w + 1 - w) / 2, b->to - tile);
        float *above = results, *below = results + 2 * point;
        for (size_t i = 0; i < run; i++)
            transform_products(products + (tile - b->from + i) * EK_PANEL, point, above + 2 * i * EK_PANEL,
                    below + 2 * i * EK_PANEL);
        size_t row = (at.image * (size_t)g->out_h + h) * (size_t)g->out_w + w;
        size_t pixels = ek_min(2 * run, (size_t)g->out_w - w);
        EK_NAME(ek_finish)(&g->finish, above, EK_PANEL, pixels, row, 1, column, columns);
        if (h + 1 < (size_t)g->out_h)
            EK_NAME(ek_finish)(&g->finish, below, EK_PANEL, pixels, row + (size_t)g->out_w, 1, column, columns);
        tile += run;
    }
}

static void run_block(const job *work, const block *b, float *pixels) {
    const ek_winograd *g = work->g;
    float *products = pixels + work->s.pixels, *results = products + work->s.products;
    size_t tiles = b->to - b->from, most = work->s.tiles, point = g->k * EK_PANEL;
    for (size_t i = 0; i < tiles; i++) {
        ek_winograd_place at = ek_winograd_find(b->from + i, g->out_h, g->out_w);
        EK_NAME(ek_winograd_pixels)(g->x + at.image * (size_t)g->height * (size_t)g->width * g->k, g->height, g->width, g->k,
                at.h + g->first_h, at.w + g->first_w, work->zeros, pixels + i * g->k, most * g->k);
    }
    for (size_t column = work->from; column < work->to; column += EK_PANEL) {
        const float *filter = work->filter + (column - work->from) / EK_PANEL * POINTS * point;
        size_t columns = ek_min(EK_PANEL, work->to - column), vectors = (columns + EK_LANES - 1) / EK_LANES;
        for (size_t p = 0; p < POINTS; p++) {
            for (size_t i = 0; i < tiles; i += EK_TILE_ROWS) {
                size_t rows = ek_min(EK_TILE_ROWS, tiles - i);
                EK_NAME(ek_dot_tiles)[vectors - 1][rows - 1](g->k, pixels + (p * most + i) * g->k, g->k, filter + p * point, EK_PANEL,
                        products + (p * most + i) * EK_PANEL, EK_PANEL, 0,
                        filter + (p + 1) * point, EK_LINE);
            }
        }
        finish_panel(work, b, products, results, column, columns);
    }
}

static size_t tiles_of(const ek_winograd *g) {
    return (((size_t)g->out_h + 1) / 2) * (((size_t)g->out_w + 1) / 2) * (size_t)g->images;
}

static void run_part(void *context, int index, int count) {
    job *work = context;
    const ek_winograd *g = work->g;
    size_t tiles = tiles_of(g);
    for (size_t part; ek_take(&work->turns, index, count, &part);) {
        block b = {part * work->s.tiles, ek_min((part + 1) * work->s.tiles, tiles)};
        run_block(work, &b, work->own + (size_t)index * own_floats(&work->s));
    }
    ek_finished(&g->finish);
}

void EK_NAME(ek_winograd)(const ek_winograd *g, ek_pool *pool, void *scratch) {
    job work = {.g = g, .s = sizes_of(g->k, g->n), .filter = scratch};
    work.zeros = work.filter + work.s.filter;
    work.own = work.zeros + work.s.zeros;
    memset(work.zeros, 0, work.s.zeros * sizeof(float));
    for (; work.from < g->n; work.from = work.to) {
        work.to = ek_min(work.from + work.s.columns, g->n);
        work.turns = (ek_turns){.parts = (work.to - work.from + EK_PANEL - 1) / EK_PANEL};
        ek_pool_run(pool, filter_part, &work);
        work.turns = (ek_turns){.parts = (tiles_of(g) + work.s.tiles - 1) / work.s.tiles};
        ek_pool_run(pool, run_part, &work);
    }
}
