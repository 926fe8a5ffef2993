/* Axes in another order.
 *
 * With the axes that stay together joined, either the innermost axis stays innermost (copies of rows), or the axis
 * that is innermost in x is another one of y: then these two make 2-D transposes, done in tiles that both sides'
 * cache lines serve. */
#include <string.h>

#include "simd.h"
#include "strides.h"

enum { BAND = 16, WIDTH = 64, SQUARE = 4 }; /* BAND x WIDTH is a tile: read along WIDTH, written along BAND */

typedef float square_row __attribute__((vector_size(SQUARE * 4)));
typedef float square_row_anywhere __attribute__((vector_size(SQUARE * 4), aligned(4)));

/* Axes `across` (stride 1 in x) and `along` (stride 1 in y, the innermost) of the space make the transposes. */
typedef struct {
    const char *x;
    char *y;
    size_t item; /* bytes of an element */
    ek_space space;
    size_t y_stride[EK_MAX_RANK];
    int across;
    size_t units, bands;
} permutation;

/* to[j][i] = from[i][j] for four by four. */
EK_INLINE void transpose_square(const float *from, size_t from_step, float *to, size_t to_step) {
    square_row r[SQUARE];
    for (int i = 0; i < SQUARE; i++) r[i] = *(const square_row_anywhere *)(from + (size_t)i * from_step);
    square_row a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    square_row c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    *(square_row_anywhere *)to = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    *(square_row_anywhere *)(to + to_step) = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    *(square_row_anywhere *)(to + 2 * to_step) = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    *(square_row_anywhere *)(to + 3 * to_step) = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* to[j][i] = from[i][j] for i < rows, j < columns. */
static void transpose(const float *from, size_t from_step, size_t rows, size_t columns, float *to, size_t to_step) {
    size_t i = 0;
    for (; i + SQUARE <= rows; i += SQUARE) {
        size_t j = 0;
        for (; j + SQUARE <= columns; j += SQUARE)
            transpose_square(from + i * from_step + j, from_step, to + j * to_step + i, to_step);
        for (; j < columns; j++)
            for (size_t k = i; k < i + SQUARE; k++) to[j * to_step + k] = from[k * from_step + j];
    }
    for (; i < rows; i++)
        for (size_t j = 0; j < columns; j++) to[j * to_step + i] = from[i * from_step + j];
}

static void transpose_bytes(const char *from, size_t from_step, size_t rows, size_t columns, char *to, size_t to_step) {
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++) to[j * to_step + i] = from[i * from_step + j];
}

/* One unit: a band of BAND rows of one transpose. Units number the band first, then the other axes. */
static void transpose_part(void *context, int index, int count) {
    const permutation *p = context;
    int along = p->space.rank - 1;
    size_t rows = p->space.dim[along], columns = p->space.dim[p->across], step = p->space.stride[0][along];
    size_t to_step = p->y_stride[p->across];
    ek_range r = ek_share(p->units, 1, index, count);
    for (size_t u = r.begin; u < r.end; u++) {
        size_t row = u % p->bands * BAND, rest = u / p->bands, from = row * step, to = row;
        for (int i = along - 1; i >= 0; i--) {
            if (i == p->across) continue;
            size_t at = rest % p->space.dim[i];
            rest /= p->space.dim[i];
            from += at * p->space.stride[0][i], to += at * p->y_stride[i];
        }
        size_t band = rows - row < BAND ? rows - row : BAND;
        for (size_t j = 0; j < columns; j += WIDTH) {
            size_t width = columns - j < WIDTH ? columns - j : WIDTH;
            const char *x = p->x + (from + j) * p->item;
            char *y = p->y + (to + j * to_step) * p->item;
            if (p->item == 1) transpose_bytes(x, step, band, width, y, to_step);
            else transpose((const float *)(const void *)x, step, band, width, (float *)(void *)y, to_step);
        }
    }
}

static void rows_part(void *context, int index, int count) {
    const permutation *p = context;
    size_t row = p->space.dim[p->space.rank - 1];
    ek_range r = ek_share(p->units, 1, index, count);
    ek_walk w = ek_walk_from(&p->space, r.begin * row);
    for (size_t i = r.begin; i < r.end; i++, ek_walk_on(&p->space, &w, row))
        memmove(p->y + i * row * p->item, p->x + w.at[0] * p->item, row * p->item);
}

static void permute(const ek_call *call) {
    const ek_permute_attrs *a = call->attrs;
    const ek_tensor *x = call->in_t[EK_PERMUTE_X];
    permutation p = {.x = call->in[EK_PERMUTE_X], .y = call->out[EK_PERMUTE_Y], .item = x->dtype == EK_I8 ? 1 : 4};
    size_t stride[EK_MAX_RANK], n = 1;
    for (int i = x->rank - 1; i >= 0; i--) stride[i] = n, n *= x->dim[i];
    if (x->rank == 0) ek_space_add(&p.space, 1, (size_t[EK_OPERANDS]){1});
    for (int i = 0; i < x->rank; i++)
        ek_space_add(&p.space, x->dim[a->perm[i]], (size_t[EK_OPERANDS]){stride[a->perm[i]]});
    int along = p.space.rank - 1;
    for (size_t i = (size_t)along + 1, s = 1; i-- > 0;) p.y_stride[i] = s, s *= p.space.dim[i];
    for (p.across = 0; p.across < along && p.space.stride[0][p.across] != 1;) p.across++;
    if (p.across == along) {
        p.units = n / p.space.dim[along];
        ek_parallel(call->pool, n, rows_part, &p);
        return;
    }
    p.bands = (p.space.dim[along] + BAND - 1) / BAND;
    p.units = n / p.space.dim[along] / p.space.dim[p.across] * p.bands;
    ek_parallel(call->pool, n, transpose_part, &p);
}

const ek_kernel EK_NAME(ek_kernel_permute) = {.run = permute};
