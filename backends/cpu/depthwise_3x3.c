/* The depthwise convolutions that networks are made of: 3×3 neighbouring taps, stride 1 or 2, so that a block of neighbours in both
 * directions reads each source vector once for all of its results. */
#include "depthwise_row.h"

enum { ROWS = EK_3X3_ROWS, COLUMNS = 4, TAPS = 3, MOST_STRIDE = 2 };
#define SOURCES(results, stride) (((results) - 1) * (stride) + TAPS) /* pixels that neighbouring results see along one axis */
enum { CHUNK = 8 * EK_STEP }; /* channels that are finished together */

typedef struct {
    const float *at[SOURCES(ROWS, MOST_STRIDE)][SOURCES(COLUMNS, MOST_STRIDE)];
} sources;

/* The pixels that the block whose first result is number t of its row sees; zeros outside of the image. */
EK_INLINE sources find_sources(int stride, const ek_row *r, int t) {
    sources s;
    int column = t * stride + r->col0;
    const float *line = r->source + ((ptrdiff_t)r->row0 * r->width + column) * r->channels;
    for (int i = 0; i < SOURCES(ROWS, stride); i++, line += (ptrdiff_t)r->width * r->channels) {
        int inside = r->row0 + i >= 0 && r->row0 + i < r->height;
        const float *pixel = line;
        for (int j = 0; j < SOURCES(COLUMNS, stride); j++, pixel += r->channels)
            s.at[i][j] = inside && column + j >= 0 && column + j < r->width ? pixel : r->zeros;
    }
    return s;
}

typedef struct {
    ek_step at[ROWS][COLUMNS];
} block;

/* One step of channels, from c on. */
EK_INLINE block sum_block(int stride, const ek_row *r, const sources *s, int c) {
    block sums = {0};
    ptrdiff_t tap = r->filter_column;
    const float *filter = r->filter + c;
    EK_UNROLL
    for (int i = 0; i < SOURCES(ROWS, stride); i++) {
        EK_UNROLL
        for (int j = 0; j < SOURCES(COLUMNS, stride); j++) {
            EK_UNROLL
            for (int v = 0; v < EK_STEP_VECTORS; v++) {
                ek_vf source = ek_load(s->at[i][j] + c + v * EK_LANES);
                EK_UNROLL
                for (int row = 0; row < ROWS; row++) {
                    EK_UNROLL
                    for (int column = 0; column < COLUMNS; column++) {
                        int a = i - row * stride, b = j - column * stride;
                        if (a >= 0 && a < TAPS && b >= 0 && b < TAPS)
                            sums.at[row][column].v[v] += source * ek_load(filter + (a * TAPS + b) * tap + v * EK_LANES);
                    }
                }
            }
        }
    }
    return sums;
}

/* --- finished in registers: a bias and a clamp, or the bits of one --- */

typedef struct {
    const float *bias;
    float *y;
    const uint8_t *saved;
    uint8_t *mask;
    size_t columns, mask_bytes; /* of a pixel */
    ek_vf low, high, top; /* top: NaN where there is none, so that infinity is below it */
    int stream;
} finisher;

static int finishes_in_registers(const ek_epilogue *e) {
    return !e->add && !e->pre && ((e->kind == EK_CLAMP && e->bias) || e->kind == EK_SAVED_BITS);
}

EK_INLINE void store_pixels(const finisher *f, int stream, float *y, const ek_step *pixels) {
    EK_UNROLL
    for (int p = 0; p < COLUMNS; p++, y += f->columns) {
        EK_UNROLL
        for (int v = 0; v < EK_STEP_VECTORS; v++) {
            if (stream) ek_stream(y + v * EK_LANES, pixels[p].v[v]);
            else ek_store(y + v * EK_LANES, pixels[p].v[v]);
        }
    }
}

/* Step c of the channels of the pixels from `place` on. */
EK_INLINE void finish_pixels(const finisher *f, ek_step *pixels, size_t place, int c) {
    size_t at = place * f->mask_bytes + (size_t)c / 8;
    EK_UNROLL
    for (int p = 0; p < COLUMNS && f->saved; p++) {
        uint32_t bits = 0;
        memcpy(&bits, f->saved + at + (size_t)p * f->mask_bytes, EK_STEP / 8);
        EK_UNROLL
        for (int v = 0; v < EK_STEP_VECTORS; v++) pixels[p].v[v] = ek_select(ek_truth_of(bits >> v * EK_LANES), pixels[p].v[v], (ek_vf){0});
    }
    EK_UNROLL
    for (int p = 0; p < COLUMNS && !f->saved; p++) {
        EK_UNROLL
        for (int v = 0; v < EK_STEP_VECTORS; v++)
            pixels[p].v[v] = ek_between(pixels[p].v[v] + ek_load(f->bias + c + v * EK_LANES), f->low, f->high);
    }
    EK_UNROLL
    for (int p = 0; p < COLUMNS && f->mask; p++) {
        uint32_t bits = 0;
        EK_UNROLL
        for (int v = 0; v < EK_STEP_VECTORS; v++)
            bits |= ek_bits_of((pixels[p].v[v] > 0.0f) & ~(pixels[p].v[v] >= f->top)) << v * EK_LANES;
        memcpy(f->mask + at + (size_t)p * f->mask_bytes, &bits, EK_STEP / 8);
    }
    float *y = f->y + place * f->columns + c;
    if (EK_STREAMS && f->stream) store_pixels(f, EK_STREAMS, y, pixels);
    else store_pixels(f, 0, y, pixels);
}

EK_INLINE void sum_rows(int stride, const ek_row *r, int rows, const ek_epilogue *finish) {
    int whole = r->channels / EK_STEP * EK_STEP;
    finisher f = {finish->bias, finish->y, finish->kind == EK_SAVED_BITS ? finish->saved : NULL, finish->mask, finish->columns,
            finish->mask_bytes, ek_low_limit(finish), ek_high_limit(finish), ek_splat(finish->high), finish->stream};
    float sums[ROWS][COLUMNS * CHUNK];
    size_t lines = (r->next_floats + EK_LINE - 1) / EK_LINE, steps = (size_t)((r->count + COLUMNS - 1) / COLUMNS * (whole / EK_STEP));
    size_t a_step = steps ? (lines + steps - 1) / steps : 0;
    const float *next = r->next;
    int registers = finishes_in_registers(finish) && rows == ROWS && r->count >= COLUMNS;
    for (int t = 0; t < r->count; t += COLUMNS) {
        if (registers && t + COLUMNS > r->count) t = r->count - COLUMNS; /* some results again */
        int most = r->count - t < COLUMNS ? r->count - t : COLUMNS;
        sources s = find_sources(stride, r, t);
        for (int chunk = 0; chunk < whole; chunk += CHUNK) {
            int end = whole - chunk < CHUNK ? whole : chunk + CHUNK;
            for (int c = chunk; c < end; c += EK_STEP) {
                for (size_t i = 0; i < a_step; i++, next += EK_LINE) ek_ahead_line(next);
                block b = sum_block(stride, r, &s, c);
                EK_UNROLL
                for (int row = 0; row < ROWS; row++) {
                    if (registers) {
                        finish_pixels(&f, b.at[row], r->place + (size_t)(row * r->count + t), c);
                        continue;
                    }
                    EK_UNROLL
                    for (int p = 0; p < COLUMNS; p++) memcpy(&sums[row][p * CHUNK + c - chunk], &b.at[row][p], sizeof(ek_step));
                }
            }
            for (int row = 0; row < rows && !registers; row++)
                EK_NAME(ek_finish)(finish, sums[row], CHUNK, (size_t)most, r->place + (size_t)(row * r->count + t), 1, (size_t)chunk,
                        (size_t)(end - chunk));
        }
    }
}

/* A function each: together, both ran 5 % slower. */
static __attribute__((noinline)) void sum_rows_1(const ek_row *r, int rows, const ek_epilogue *finish) { sum_rows(1, r, rows, finish); }

static __attribute__((noinline)) void sum_rows_2(const ek_row *r, int rows, const ek_epilogue *finish) { sum_rows(2, r, rows, finish); }

void EK_NAME(ek_depthwise_3x3)(const ek_row *r, int rows, const ek_epilogue *finish) {
    (r->step == 1 ? sum_rows_1 : sum_rows_2)(r, rows, finish);
}
