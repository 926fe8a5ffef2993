/* Dense 3 × 3 convolutions of stride 1 by Winograd's F(2 × 2, 3 × 3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", 2016): 16 multiplications for 2 × 2 results where the definition takes 36. Forward, and the input gradient, which is
 * the same with the filter turned round. The constants are 1 and 1/2, so the rounding stays close to the definition's; F(4 × 4)
 * would save as much again and lose about a digit. */
#ifndef EK_WINOGRAD_H
#define EK_WINOGRAD_H

#include "gemm.h"

typedef struct {
    int images, height, width, out_h, out_w; /* of x and y */
    size_t k, n;                             /* channels of x and y */
    int first_h, first_w;                    /* result (p, q) sees pixels (p + first_h …, q + first_w …), 3 each way */
    const float *x;
    ek_weights w; /* k = (tap row, tap column, channel of x) */
    ek_epilogue finish;
} ek_winograd;

/* Whether it is faster than the matrix product over patches, for whole vectors of channels: measured, wherever the results are
 * many enough to pay for the filter's transform. */
EK_INLINE int ek_winograd_pays(size_t results, size_t k, size_t n) { return results >= 96 && k % 16 == 0 && n >= 16; }

size_t EK_NAME(ek_winograd_scratch)(size_t k, size_t n, int threads);
void EK_NAME(ek_winograd)(const ek_winograd *g, ek_pool *pool, void *scratch);

#endif
