/* One row of a depthwise convolution's results, whichever way it is computed: forward, or one phase of an input
 * gradient. */
#ifndef EK_DEPTHWISE_ROW_H
#define EK_DEPTHWISE_ROW_H

#include "ahead.h"
#include "conv.h"

/* Result t (of `count`) is the sum over taps (i, j) of source pixel (row0 + i next_h, t step + col0 + j next_w), zero
 * outside the source, times filter (i, j). It is finished as pixel place + t place_step. */
typedef struct {
    const float *source, *filter; /* the image, the first tap */
    const float *zeros;           /* a pixel outside */
    ptrdiff_t filter_row, filter_column;
    int height, width, channels;
    int taps_h, taps_w, row0, col0, next_h, next_w, step, count;
    size_t place, place_step;
    const float *next; /* what the row after this one reads first: asked for while this one is computed */
    size_t next_floats;
} ek_row;

void EK_NAME(ek_depthwise_row)(const ek_row *row, const ek_epilogue *finish);

/* The same for `rows` neighbouring rows (at most EK_3X3_ROWS), for 3×3 taps with step 1 or 2 in both directions, next_h and next_w 1,
 * place_step 1 and filter_row 3 filter_column, without the channels past the last whole step. */
void EK_NAME(ek_depthwise_3x3)(const ek_row *row, int rows, const ek_epilogue *finish);

/* Channels from `from` on, one result at a time. */
void EK_NAME(ek_depthwise_rest)(const ek_row *row, const ek_epilogue *finish, int from);

#if defined(__x86_64__) && !defined(__AVX2__)
enum { EK_3X3_ROWS = 1 };
#else
enum { EK_3X3_ROWS = 2 };
#endif

/* The sums of dy(t) times source pixel, by tap, of one row of dy: added to sums[tap_h][tap_w][channels], and dy's own
 * to `total` unless NULL. In the row, `filter` is the row of dy. */
void EK_NAME(ek_depthwise_row_weights)(const ek_row *row, float *sums, float *total);

/* Taps in a row up to which there are several tiles. More taps are rare and their code is large; SSE2's registers hold no tile but
 * the smallest, nor do NEON's with more weights. */
#if defined(__x86_64__) && !defined(__AVX2__)
enum { EK_TILED_TAPS = 0 };
#else
enum { EK_TILED_TAPS = 3 };
#endif

/* How many results share a pass over the channels: tiles of 4, 7 and 8 exist, and sizes in use divide well by one of
 * them. */
EK_INLINE int ek_row_tile(int count, int taps) {
    if (taps > EK_TILED_TAPS) return EK_LANES < 8 ? 4 : 8;
    int sevens = (count + 6) / 7 * 7, eights = (count + 7) / 8 * 8, fours = (count + 3) / 4 * 4;
    return count <= 4 || (fours < sevens && fours < eights) ? 4 : sevens < eights ? 7 : 8;
}

/* First and past-last i in [0, count) with 0 ≤ at + i next < size. */
EK_INLINE void ek_taps_inside(int at, int next, int count, int size, int *from, int *to) {
    int i = 0;
    while (i < count && (at + i * next < 0 || at + i * next >= size)) i++;
    *from = i;
    while (i < count && at + i * next >= 0 && at + i * next < size) i++;
    *to = i;
}

enum { EK_MOST_TILE = 8, EK_MOST_TAPS = 7, EK_MOST_COLUMNS = 2 * (EK_MOST_TILE - 1) + EK_MOST_TAPS };

/* Where the columns that a tile sees lie, for one row of taps. */
EK_INLINE void ek_find_columns(const ek_row *r, int i, int t, int tile, const float *columns[EK_MOST_COLUMNS]) {
    int n = (tile - 1) * r->step + r->taps_w, first = t * r->step + r->col0;
    const float *line = r->source + ((ptrdiff_t)(r->row0 + i * r->next_h) * r->width + first) * r->channels;
    for (int k = 0; k < n; k++, line += r->channels) columns[k] = first + k >= 0 && first + k < r->width
            ? line : r->zeros;
}

#endif
