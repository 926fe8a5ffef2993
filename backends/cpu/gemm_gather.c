#include "gemm.h"

/* A copy of a few floats; shorter than a call of memcpy. */
EK_INLINE void ek_copy(float *to, const float *from, size_t n) {
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) ek_store(to + i, ek_load(from + i));
    if (i < n) ek_store_part(to + i, ek_load_part(from + i, (int)(n - i)), (int)(n - i));
}

EK_INLINE void ek_clear(float *to, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = 0.0f;
}

/* Columns [column, column + columns) of the window at image `image`, place (p, q). */
static void gather_window(const ek_rows *a, const float *image, int p, int q, size_t column, size_t columns,
        float *to) {
    size_t channels = (size_t)a->channels;
    int tap = (int)(column / channels);
    size_t c = column - (size_t)tap * channels;
    int i = tap / a->taps_w, j = tap - i * a->taps_w;
    int adjoining = a->next_w == 1 && a->ld == channels; /* a tap row is one piece of memory */
    int w0 = q * a->step_w + a->first_w;
    while (columns) {
        int h = p * a->step_h + a->first_h + i * a->next_h, w = w0 + j * a->next_w;
        int inside = h >= 0 && h < a->height && w >= 0 && w < a->width;
        int taps = adjoining && inside ? (a->taps_w - j < a->width - w ? a->taps_w - j : a->width - w) : 1;
        size_t n = ek_min((size_t)taps * channels - c, columns);
        if (inside) ek_copy(to, image + ((size_t)h * (size_t)a->width + (size_t)w) * a->ld + c, n);
        else ek_clear(to, n);
        to += n, columns -= n, c = 0, j += taps;
        if (j == a->taps_w) j = 0, i++;
    }
}

/* n floats and then zeros up to a whole vector: faster than stopping at n. */
EK_INLINE void copy_padded(float *to, const float *from, size_t n) {
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) ek_store(to + i, ek_load(from + i));
    if (i < n) ek_store(to + i, ek_load_part(from + i, (int)(n - i)));
}

/* A whole window whose tap rows are short pieces of memory: the first layer of a network. */
static void gather_short(const ek_rows *a, const float *image, int p, int q, float *to) {
    size_t run = (size_t)a->taps_w * a->ld;
    int w = q * a->step_w + a->first_w, h = p * a->step_h + a->first_h;
    int before = w < 0 ? -w : 0, after = a->width - w; /* the taps inside the image: [before, after) */
    if (after > a->taps_w) after = a->taps_w;
    for (int i = 0; i < a->taps_h; i++, h += a->next_h, to += run) {
        int inside = h >= 0 && h < a->height && before < after;
        if (!inside || after - before < a->taps_w)
            for (size_t j = 0; j < run; j += EK_LANES) ek_store(to + j, (ek_vf){0});
        if (inside) copy_padded(to + (size_t)before * a->ld, image + ((size_t)h * (size_t)a->width + (size_t)(w + before)) * a->ld,
                (size_t)(after - before) * a->ld);
    }
}

void EK_NAME(ek_gather)(const ek_rows *a, size_t row, size_t rows, size_t column, size_t columns, float *to,
        size_t ld) {
    if (!a->patches) {
        for (size_t r = 0; r < rows; r++) ek_copy(to + r * ld, a->from.data + (row + r) * a->ld + column, columns);
        return;
    }
    if (!columns) return; /* a phase of an input gradient that no tap reaches */
    size_t grid_w = (size_t)a->grid_w, grid = (size_t)a->grid_h * grid_w,
            image = (size_t)a->height * (size_t)a->width * a->ld;
    const float *data = a->from.data + row / grid * image;
    int p = (int)(row % grid / grid_w), q = (int)(row % grid_w);
    int short_runs = a->next_w == 1 && a->ld == (size_t)a->channels && (size_t)a->taps_w * a->ld <= 4 * EK_LANES
            && columns == (size_t)a->taps_h * (size_t)a->taps_w * a->ld;
    for (size_t r = 0; r < rows; r++, to += ld) {
        if (short_runs) gather_short(a, data, p, q, to);
        else gather_window(a, data, p, q, column, columns, to);
        if (++q < a->grid_w) continue;
        q = 0;
        if (++p < a->grid_h) continue;
        p = 0;
        data += image;
    }
}
