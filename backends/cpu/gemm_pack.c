#include "gemm.h"
#include "gemm_pack.h"

static void pack_rows(const float *from, ptrdiff_t by_k, size_t depth, size_t n, float *to) {
    size_t whole = n / EK_LANES, rest = n % EK_LANES;
    for (size_t k = 0; k < depth; k++, from += by_k, to += EK_PANEL) {
        size_t j = 0;
        for (; j < whole; j++) ek_store(to + j * EK_LANES, ek_load(from + j * EK_LANES));
        if (rest) ek_store(to + j++ * EK_LANES, ek_load_part(from + whole * EK_LANES, (int)rest));
        for (; j < EK_TILE_VECTORS; j++) ek_store(to + j * EK_LANES, (ek_vf){0});
    }
}

typedef float four __attribute__((vector_size(16)));
typedef float four_anywhere __attribute__((vector_size(16), aligned(4)));

/* to[k, j] = from[j by_n + k] for j, k < 4; rows of `to` are EK_PANEL apart. */
EK_INLINE void transpose(const float *from, ptrdiff_t by_n, float *to) {
    four a = *(const four_anywhere *)from, b = *(const four_anywhere *)(from + by_n);
    four c = *(const four_anywhere *)(from + 2 * by_n), d = *(const four_anywhere *)(from + 3 * by_n);
    four ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    four cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(four_anywhere *)to = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
    *(four_anywhere *)(to + EK_PANEL) = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
    *(four_anywhere *)(to + 2 * EK_PANEL) = __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5);
    *(four_anywhere *)(to + 3 * EK_PANEL) = __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7);
}

/* The weight transposed: k runs along its rows. */
static void pack_columns(const float *from, ptrdiff_t by_n, size_t depth, size_t n, float *to) {
    size_t k = 0;
    for (; k + 4 <= depth; k += 4) {
        size_t j = 0;
        for (; j + 4 <= n; j += 4) transpose(from + (ptrdiff_t)j * by_n + k, by_n, to + k * EK_PANEL + j);
        for (; j < EK_PANEL; j++)
            for (size_t i = k; i < k + 4; i++) to[i * EK_PANEL + j] = j < n ? from[(ptrdiff_t)j * by_n
                    + (ptrdiff_t)i] : 0.0f;
    }
    for (; k < depth; k++)
        for (size_t j = 0; j < EK_PANEL; j++) to[k * EK_PANEL + j] = j < n ? from[(ptrdiff_t)j * by_n
                + (ptrdiff_t)k] : 0.0f;
}

void EK_NAME(ek_pack_panel)(const ek_weights *b, size_t k0, size_t depth, size_t n0, size_t n, float *to) {
    while (depth) {
        size_t tap = k0 / b->depth, c = k0 % b->depth, run = ek_min(b->depth - c, depth);
        const float *from = b->from.data + (ptrdiff_t)(tap / b->taps_w) * b->tap_row
                + (ptrdiff_t)(tap % b->taps_w) * b->tap_column +
                            (ptrdiff_t)c * b->by_k + (ptrdiff_t)n0 * b->by_n;
        if (b->by_n == 1) pack_rows(from, b->by_k, run, n, to);
        else pack_columns(from, b->by_n, run, n, to);
        to += run * EK_PANEL, k0 += run, depth -= run;
    }
}

size_t EK_NAME(ek_gemm_packed_floats)(size_t k, size_t n) { return k * ek_round_up(n, EK_PANEL); }

void EK_NAME(ek_gemm_pack)(const ek_weights *b, size_t k, size_t n, float *to) {
    for (size_t column = 0; column < n; column += EK_PANEL, to += k * EK_PANEL)
        EK_NAME(ek_pack_panel)(b, 0, k, column, ek_min(EK_PANEL, n - column), to);
}
