/* dw = A.T @ dy for a processor with 32 scalar float registers and little memory: A is read through a tile of ROWS × COLUMNS floats,
 * in which integers become floats; dw itself holds the sums of earlier rows. */
#include "gemm.h"

enum { ROWS = 32, COLUMNS = 8, SIDE = 4 };

typedef struct {
    float a[ROWS][COLUMNS];
} tile;

size_t EK_NAME(ek_outer_gemm_scratch)(size_t m, size_t k, size_t n, int threads) {
    (void)m, (void)k, (void)n;
    return sizeof(tile) * (size_t)threads;
}

/* Element `at` of A's array. */
EK_INLINE float element(const ek_real *from, size_t at) {
    return from->data ? from->data[at] : (float)(from->whole[at] - from->zero) * *from->scale;
}

/* Columns of a row of patches, one at a time. */
static void read_window(const ek_rows *a, size_t row, size_t k, size_t columns, float *to) {
    size_t grid_w = (size_t)a->grid_w, grid = (size_t)a->grid_h * grid_w, pixels = (size_t)a->height * (size_t)a->width;
    size_t image = row / grid, channels = (size_t)a->channels;
    int p = (int)(row % grid / grid_w), q = (int)(row % grid_w);
    for (size_t i = 0; i < columns; i++) {
        size_t tap = (k + i) / channels, c = (k + i) % channels;
        int h = p * a->step_h + a->first_h + (int)(tap / (size_t)a->taps_w) * a->next_h;
        int w = q * a->step_w + a->first_w + (int)(tap % (size_t)a->taps_w) * a->next_w;
        int inside = h >= 0 && h < a->height && w >= 0 && w < a->width;
        to[i] = inside ? element(&a->from, (image * pixels + (size_t)h * (size_t)a->width + (size_t)w) * a->ld + c) : 0.0f;
    }
}

/* Rows × columns of A from (row, k) on; zeros past the columns. */
static void read_a(const ek_rows *a, size_t row, size_t rows, size_t k, size_t columns, tile *t) {
    for (size_t r = 0; r < rows; r++) {
        float *to = t->a[r];
        if (a->patches) {
            read_window(a, row + r, k, columns, to);
        } else if (a->from.data) {
            memcpy(to, a->from.data + (row + r) * a->ld + k, columns * sizeof *to);
        } else {
            const int8_t *from = a->from.whole + (row + r) * a->ld + k;
            float scale = *a->from.scale;
            for (size_t i = 0; i < columns; i++) to[i] = (float)(from[i] - a->from.zero) * scale;
        }
        for (size_t i = columns; i < COLUMNS; i++) to[i] = 0.0f;
    }
}

/* SIDE × `n` sums over the rows: columns of A from a on, of dy from dy on. */
EK_INLINE void multiply(size_t rows, const float *a, const float *dy, size_t ld, int n, float s[SIDE][SIDE]) {
    for (size_t r = 0; r < rows; r++, a += COLUMNS, dy += ld) {
        EK_UNROLL
        for (int i = 0; i < SIDE; i++) {
            EK_UNROLL
            for (int j = 0; j < n; j++) s[i][j] += a[i] * dy[j];
        }
    }
}

/* The tile's share of SIDE rows of dw (`count` of them exist), n columns of it. */
EK_INLINE void add_block(const float *a, const float *dy, size_t ld, size_t rows, int n, float *dw, size_t dw_ld, size_t count, int add) {
    float s[SIDE][SIDE] = {0};
    multiply(rows, a, dy, ld, n, s);
    for (size_t i = 0; i < count; i++, dw += dw_ld)
        for (int j = 0; j < n; j++) dw[j] = add ? dw[j] + s[i][j] : s[i][j];
}

/* Rows k … of dw. */
static void run_rows(const ek_outer_gemm *g, size_t k, size_t columns, tile *t) {
    for (size_t m = 0; m < g->m; m += ROWS) {
        size_t rows = ek_min(ROWS, g->m - m);
        read_a(&g->a, m, rows, k, columns, t);
        for (size_t i = 0; i < columns; i += SIDE) {
            const float *a = t->a[0] + i, *dy = g->dy + m * g->dy_ld;
            float *dw = g->dw + (k + i) * g->dw_ld;
            size_t count = ek_min(SIDE, columns - i), n = 0;
            for (; n + SIDE <= g->n; n += SIDE) add_block(a, dy + n, g->dy_ld, rows, SIDE, dw + n, g->dw_ld, count, m > 0);
            for (; n < g->n; n++) add_block(a, dy + n, g->dy_ld, rows, 1, dw + n, g->dw_ld, count, m > 0);
        }
    }
}

static void sum_rows(const ek_outer_gemm *g) {
    for (size_t n = 0; n < g->n; n++) {
        float sum = 0.0f;
        const float *dy = g->dy + n;
        for (size_t m = 0; m < g->m; m++, dy += g->dy_ld) sum += *dy;
        g->db[n] = sum;
    }
}

typedef struct {
    const ek_outer_gemm *g;
    tile *tiles;
} job;

static void run_part(void *context, int index, int count) {
    const job *work = context;
    const ek_outer_gemm *g = work->g;
    size_t from, to;
    ek_share(g->k, COLUMNS, index, count, &from, &to);
    for (size_t k = from; k < to; k += COLUMNS) run_rows(g, k, ek_min(COLUMNS, to - k), work->tiles + index);
    if (index == 0 && g->db) sum_rows(g);
}

void EK_NAME(ek_outer_gemm)(const ek_outer_gemm *g, ek_pool *pool, void *scratch) {
    job work = {g, scratch};
    ek_pool_run(pool, run_part, &work);
}
