/* Where the rows of A of a tile lie: in A, if it is a matrix; in the image, if windows next to one another are a plain matrix there for
 * each tap row; or gathered. */
#ifndef EK_GEMM_ROWS_H
#define EK_GEMM_ROWS_H

#include "gemm.h"

/* `segments` of them, each a plain matrix of `depth` columns, `next` floats after the one before. */
typedef struct {
    const float *data;
    size_t ld, depth, segments;
    ptrdiff_t next;
} tile_rows_of_a;

/* Whether the taps of a tap row are neighbours in memory, so that windows next to one another are a plain matrix for each tap row. */
static inline int has_plain_taps(const ek_gemm *g) {
    const ek_rows *a = &g->a;
    size_t run = (size_t)a->taps_w * a->ld;
    if (!a->patches || a->next_w != 1 || a->ld != (size_t)a->channels) return 0;
    /* Gathered, fewer columns would be left over from whole vectors of them. */
    return !EK_BY_LANE || (size_t)a->taps_h * (run % EK_LANES) <= g->k % EK_LANES;
}

/* A row of the grid: rows [.., end) of A, of which the windows of [from, to) lie wholly inside the image, the first one's at `data`. */
typedef struct {
    size_t end, from, to;
    const float *data;
} grid_line;

static inline grid_line find_line(const ek_rows *a, size_t row) {
    size_t grid_w = (size_t)a->grid_w, line = row / grid_w, image = line / (size_t)a->grid_h;
    int h = (int)(line % (size_t)a->grid_h) * a->step_h + a->first_h, last_h = h + (a->taps_h - 1) * a->next_h;
    int room = a->width - a->taps_w - a->first_w, left = a->first_w < 0 ? -a->first_w : 0;
    grid_line found = {.end = (line + 1) * grid_w};
    if (h < 0 || h >= a->height || last_h < 0 || last_h >= a->height || room < 0) return found;
    size_t from = (size_t)(left / a->step_w + (left % a->step_w > 0)), to = ek_min((size_t)(room / a->step_w) + 1, grid_w);
    if (from >= to) return found;
    size_t pixel = (image * (size_t)a->height + (size_t)h) * (size_t)a->width + from * (size_t)a->step_w;
    found.from = line * grid_w + from, found.to = line * grid_w + to;
    found.data = a->from.data + ((ptrdiff_t)pixel + a->first_w) * (ptrdiff_t)a->ld;
    return found;
}

/* Columns [k0, k0 + depth) of rows of A, which are gathered where they do not lie as a tile reads them. `line`: of the grid, kept from tile
 * to tile; NULL where taps are not plain. */
static inline tile_rows_of_a find_rows(const ek_gemm *g, grid_line *line, size_t row, size_t rows, size_t k0, size_t depth, float *buffer,
        size_t buffer_ld) {
    const ek_rows *a = &g->a;
    if (line && row >= line->end) *line = find_line(a, row);
    if (line && row >= line->from && row + EK_TILE_ROWS <= line->to && rows == EK_TILE_ROWS) {
        size_t ld = (size_t)a->step_w * a->ld;
        return (tile_rows_of_a){line->data + (row - line->from) * ld, ld, (size_t)a->taps_w * a->ld, (size_t)a->taps_h,
                (ptrdiff_t)a->next_h * a->width * (ptrdiff_t)a->ld};
    }
    if (!a->patches) return (tile_rows_of_a){a->from.data + row * a->ld + k0, a->ld, depth, 1, 0};
    EK_NAME(ek_gather)(a, row, rows, k0, depth, buffer, buffer_ld);
    return (tile_rows_of_a){buffer, buffer_ld, depth, 1, 0};
}

#endif
