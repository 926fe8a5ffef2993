#include "depthwise_row.h"

enum { CHUNK = 8 * EK_STEP }; /* channels that are finished together */

/* One step of channels of `tile` results, taps in rows [i0, i1): each source vector is loaded once for all taps of a
 * row. */
EK_INLINE void sum_tile(int tile, int taps, int step, const ek_row *r, const float *(*columns)[EK_MOST_COLUMNS],
                        int i0, int i1, int c, float *sums) {
    ek_step acc[EK_MOST_TILE] = {0};
    for (int i = i0; i < i1; i++) {
        const float *const *column = columns[i - i0];
        const float *filter = r->filter + i * r->filter_row + c;
        ek_step weight[EK_MOST_TAPS];
        EK_UNROLL
        for (int j = 0; j < taps; j++) {
            EK_UNROLL
            for (int v = 0; v < EK_STEP_VECTORS; v++) weight[j].v[v] = ek_load(filter + j * r->filter_column
                    + v * EK_LANES);
        }
        EK_UNROLL
        for (int k = 0; k < (tile - 1) * step + taps; k++) {
            EK_UNROLL
            for (int v = 0; v < EK_STEP_VECTORS; v++) {
                ek_vf source = ek_load(column[k] + c + v * EK_LANES);
                EK_UNROLL
                for (int p = 0; p < tile; p++)
                    if (k >= p * step && k < p * step + taps) acc[p].v[v] += source * weight[k - p * step].v[v];
            }
        }
    }
    EK_UNROLL
    for (int p = 0; p < tile; p++) {
        EK_UNROLL
        for (int v = 0; v < EK_STEP_VECTORS; v++) ek_store(sums + p * CHUNK + v * EK_LANES, acc[p].v[v]);
    }
}

enum { MOST_ROWS = 8 };

/* Steps of channels that a row takes. */
static inline size_t steps_of(const ek_row *r, int tile) {
    return (size_t)((r->count + tile - 1) / tile) * (size_t)(r->channels / EK_STEP);
}

EK_INLINE void sum_tiles(int tile, int taps, int step, const ek_row *r, const ek_epilogue *finish) {
    const float *columns[MOST_ROWS][EK_MOST_COLUMNS];
    int i0, i1;
    ek_taps_inside(r->row0, r->next_h, r->taps_h, r->height, &i0, &i1);
    float sums[EK_MOST_TILE * CHUNK];
    int whole = r->channels / EK_STEP * EK_STEP;
    ek_ahead next = ek_ahead_of(r->next, r->next_floats, steps_of(r, tile));
    for (int t = 0; t < r->count; t += tile) {
        size_t most = (size_t)(r->count - t < tile ? r->count - t : tile), place = r->place + (size_t)t * r->place_step;
        for (int i = i0; i < i1; i++) ek_find_columns(r, i, t, tile, columns[i - i0]);
        for (int chunk = 0; chunk < whole; chunk += CHUNK) {
            int end = whole - chunk < CHUNK ? whole : chunk + CHUNK;
            for (int c = chunk; c < end; c += EK_STEP) {
                ek_ahead_step(&next);
                sum_tile(tile, taps, step, r, columns, i0, i1, c, sums + c - chunk);
            }
            EK_NAME(ek_finish)(finish, sums, CHUNK, most, place, r->place_step, (size_t)chunk, (size_t)(end - chunk));
        }
    }
}

/* Any geometry, one result at a time, from channel `from`. */
EK_INLINE void sum_one(const ek_row *r, const ek_epilogue *finish, int t, int i0, int i1, int j0, int j1, int c,
        int n) {
    ek_step acc = {0};
    ptrdiff_t pixel = r->channels;
    for (int i = i0; i < i1; i++) {
        const float *source = r->source + ((ptrdiff_t)(r->row0 + i * r->next_h) * r->width + t * r->step
                + r->col0) * pixel + c;
        const float *filter = r->filter + i * r->filter_row + c;
        for (int j = j0; j < j1; j++) {
            EK_UNROLL
            for (int v = 0; v < EK_STEP_VECTORS; v++)
                acc.v[v] += ek_read(filter + j * r->filter_column, v * EK_LANES, n) * ek_read(source
                        + j * r->next_w * pixel, v * EK_LANES, n);
        }
    }
    float sums[EK_STEP];
    EK_UNROLL
    for (int v = 0; v < EK_STEP_VECTORS; v++) ek_store(sums + v * EK_LANES, acc.v[v]);
    EK_NAME(ek_finish)(finish, sums, EK_STEP, 1, r->place + (size_t)t * r->place_step, 0, (size_t)c, (size_t)n);
}

void EK_NAME(ek_depthwise_rest)(const ek_row *r, const ek_epilogue *finish, int from) {
    int i0, i1, j0, j1;
    ek_taps_inside(r->row0, r->next_h, r->taps_h, r->height, &i0, &i1);
    for (int t = 0; t < r->count; t++) {
        int c = from;
        ek_taps_inside(t * r->step + r->col0, r->next_w, r->taps_w, r->width, &j0, &j1);
        for (; c + EK_STEP <= r->channels; c += EK_STEP) sum_one(r, finish, t, i0, i1, j0, j1, c, EK_STEP);
        if (c < r->channels) sum_one(r, finish, t, i0, i1, j0, j1, c, r->channels - c);
    }
}

/* The instances: taps in a row, and the step from result to result. An input gradient's phases with stride 2 have 1 to
 * 4 taps. */
#define EACH_SHAPE(f) f(1, 1) f(2, 1) f(3, 1) f(4, 1) f(5, 1) f(7, 1) f(3, 2) f(5, 2) f(7, 2)

/* 3 taps are mostly of 3×3 (depthwise_3x3.c). */
EK_INLINE int sum_tile_of(int count, int taps) {
    return ek_row_tile(count, taps == 3 ? EK_TILED_TAPS + 1 : taps);
}

#define INSTANCE(taps, step) \
    static void sum_##taps##_##step(const ek_row *r, const ek_epilogue *finish) { \
        int tile = sum_tile_of(r->count, taps); \
        if (tile == 4) sum_tiles(4, taps, step, r, finish); \
        else if (tile == 7) sum_tiles(7, taps, step, r, finish); \
        else sum_tiles(8, taps, step, r, finish); \
    }
EACH_SHAPE(INSTANCE)

void EK_NAME(ek_depthwise_row)(const ek_row *row, const ek_epilogue *finish) {
    int rest = row->channels / EK_STEP * EK_STEP;
    if (row->next_w == 1 && row->taps_h <= MOST_ROWS) {
#define CHOOSE(taps, by) \
    if (row->taps_w == taps && row->step == by) { \
        sum_##taps##_##by(row, finish); \
        if (rest < row->channels) EK_NAME(ek_depthwise_rest)(row, finish, rest); \
        return; \
    }
        EACH_SHAPE(CHOOSE)
    }
    EK_NAME(ek_depthwise_rest)(row, finish, 0);
}

/* --- weight gradients --- */

EK_INLINE void weigh_tile(int tile, int taps, int step, const ek_row *r, const float *(*columns)[EK_MOST_COLUMNS],
        const float *const *dy,
                          int i0, int i1, float *sums, float *total, int c) {
    ek_step d[EK_MOST_TILE];
    EK_UNROLL
    for (int p = 0; p < tile; p++) {
        EK_UNROLL
        for (int v = 0; v < EK_STEP_VECTORS; v++) d[p].v[v] = ek_load(dy[p] + c + v * EK_LANES);
    }
    for (int i = i0; i < i1; i++) {
        const float *const *column = columns[i - i0];
        float *sum = sums + (ptrdiff_t)i * taps * r->channels + c;
        ek_step acc[EK_MOST_TAPS] = {0};
        EK_UNROLL
        for (int k = 0; k < (tile - 1) * step + taps; k++) {
            EK_UNROLL
            for (int v = 0; v < EK_STEP_VECTORS; v++) {
                ek_vf source = ek_load(column[k] + c + v * EK_LANES);
                EK_UNROLL
                for (int p = 0; p < tile; p++)
                    if (k >= p * step && k < p * step + taps) acc[k - p * step].v[v] += source * d[p].v[v];
            }
        }
        EK_UNROLL
        for (int j = 0; j < taps; j++) {
            EK_UNROLL
            for (int v = 0; v < EK_STEP_VECTORS; v++) {
                float *to = sum + (ptrdiff_t)j * r->channels + v * EK_LANES;
                ek_store(to, ek_load(to) + acc[j].v[v]);
            }
        }
    }
    if (!total) return;
    EK_UNROLL
    for (int v = 0; v < EK_STEP_VECTORS; v++) {
        ek_vf sum = {0};
        EK_UNROLL
        for (int p = 0; p < tile; p++) sum += d[p].v[v];
        ek_store(total + c + v * EK_LANES, ek_load(total + c + v * EK_LANES) + sum);
    }
}

EK_INLINE void weigh_tiles(int tile, int taps, int step, const ek_row *r, float *sums, float *total) {
    const float *columns[MOST_ROWS][EK_MOST_COLUMNS], *dy[EK_MOST_TILE];
    int i0, i1;
    ek_taps_inside(r->row0, r->next_h, r->taps_h, r->height, &i0, &i1);
    size_t row = (size_t)r->count * (size_t)r->channels;
    ek_ahead next = ek_ahead_of(r->next, r->next_floats, steps_of(r, tile)),
            next_dy = ek_ahead_of(r->filter + row, row, steps_of(r, tile));
    for (int t = 0; t < r->count; t += tile) {
        int c = 0;
        for (int i = i0; i < i1; i++) ek_find_columns(r, i, t, tile, columns[i - i0]);
        for (int p = 0; p < tile; p++) dy[p] = t + p < r->count ? r->filter + (ptrdiff_t)(t
                + p) * r->channels : r->zeros;
        for (; c + EK_STEP <= r->channels; c += EK_STEP) {
            ek_ahead_step(&next);
            ek_ahead_step(&next_dy);
            weigh_tile(tile, taps, step, r, columns, dy, i0, i1, sums, total, c);
        }
    }
}

/* Any geometry, from channel `from`. */
static void weigh_each(const ek_row *r, float *sums, float *total, int from) {
    int i0, i1, j0, j1;
    ptrdiff_t pixel = r->channels;
    ek_taps_inside(r->row0, r->next_h, r->taps_h, r->height, &i0, &i1);
    for (int t = 0; t < r->count; t++) {
        const float *dy = r->filter + t * pixel;
        ek_taps_inside(t * r->step + r->col0, r->next_w, r->taps_w, r->width, &j0, &j1);
        for (int i = i0; i < i1; i++) {
            for (int j = j0; j < j1; j++) {
                const float *source = r->source + ((ptrdiff_t)(r->row0 + i * r->next_h) * r->width + t * r->step
                        + r->col0 + j * r->next_w) * pixel;
                float *sum = sums + (ptrdiff_t)(i * r->taps_w + j) * pixel;
                for (int c = from; c < r->channels; c++) sum[c] += source[c] * dy[c];
            }
        }
        for (int c = from; total && c < r->channels; c++) total[c] += dy[c];
    }
}

#define EACH_FILTER(f) f(3, 1) f(5, 1) f(7, 1) f(3, 2) f(5, 2) f(7, 2)

#define WEIGHT_INSTANCE(taps, step) \
    static void weigh_##taps##_##step(const ek_row *r, float *sums, float *total) { \
        int tile = ek_row_tile(r->count, taps); \
        if (tile == 4) weigh_tiles(4, taps, step, r, sums, total); \
        else if (tile == 7) weigh_tiles(7, taps, step, r, sums, total); \
        else weigh_tiles(8, taps, step, r, sums, total); \
    }
EACH_FILTER(WEIGHT_INSTANCE)

void EK_NAME(ek_depthwise_row_weights)(const ek_row *row, float *sums, float *total) {
    int rest = row->channels / EK_STEP * EK_STEP;
    if (row->next_w == 1 && row->taps_h <= MOST_ROWS) {
#define CHOOSE_WEIGHTS(taps, by) \
    if (row->taps_w == taps && row->step == by) { \
        weigh_##taps##_##by(row, sums, total); \
        if (rest < row->channels) weigh_each(row, sums, total, rest); \
        return; \
    }
        EACH_FILTER(CHOOSE_WEIGHTS)
    }
    weigh_each(row, sums, total, 0);
}
