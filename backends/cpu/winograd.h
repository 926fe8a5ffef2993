/* Dense 3 × 3 convolutions of stride 1 by Winograd's F(2 × 2, 3 × 3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", 2016): y = Aᵀ [(G g Gᵀ) · (Bᵀ d B)] A takes 16 multiplications for 2 × 2 results where the definition takes 36. Forward;
 * the input gradient, which is the same with the filter turned round; and the weight gradient, the derivative of that formula,
 * dg = Gᵀ [(A dy Aᵀ) · (Bᵀ d B)] G, summed over all tiles before the outer transform. The constants are 1 and 1/2, so the rounding
 * stays close to the definition's; F(4 × 4) would save as much again and lose about a digit. */
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

typedef struct {
    int images, height, width, out_h, out_w; /* of x and dy */
    size_t k, n;                             /* channels of x and dy */
    int first_h, first_w;                    /* as above */
    const float *x, *dy;
    float *dw, *db; /* 3 × 3 × k × n; db may be NULL */
} ek_winograd_grad;

/* Whether a convolution of its kind is computed by it: where the Program says so, else where the results are many enough to pay for the
 * filter's transform. The channels must be whole vectors. A microcontroller has no memory for the transformed filters. */
#if defined(EK_M7)
EK_INLINE int ek_winograd_is(int32_t algorithm, size_t results, size_t k, size_t n) {
    return (void)algorithm, (void)results, (void)k, (void)n, 0;
}
#else
EK_INLINE int ek_winograd_is(int32_t algorithm, size_t results, size_t k, size_t n) {
    int pays = algorithm == EK_ALGORITHM_AUTO && results >= EK_WINOGRAD_RESULTS && n >= 16;
    return (pays || algorithm == EK_ALGORITHM_WINOGRAD) && k % 16 == 0;
}
#endif

size_t EK_NAME(ek_winograd_scratch)(size_t k, size_t n, int threads);
void EK_NAME(ek_winograd)(const ek_winograd *g, ek_pool *pool, void *scratch);


/* For k and n that are multiples of 16. */
size_t EK_NAME(ek_winograd_grad_scratch)(size_t k, size_t n, int threads);
void EK_NAME(ek_winograd_grad)(const ek_winograd_grad *g, ek_pool *pool, void *scratch);

/* Tile `number`, counted through the images, of the grids of 2 × 2 results: its image and its first result there. */
typedef struct {
    size_t image;
    int h, w;
} ek_winograd_place;

EK_INLINE ek_winograd_place ek_winograd_find(size_t number, int out_h, int out_w) {
    size_t across = ((size_t)out_w + 1) / 2, down = ((size_t)out_h + 1) / 2, place = number % (across * down);
    return (ek_winograd_place){number / (across * down), (int)(place / across) * 2, (int)(place % across) * 2};
}

/* Bᵀ d B of the 4 × 4 pixels from (h, w) on of an image of k channels: to 16 points, `point` floats apart. `zeros`: a pixel outside. */
void EK_NAME(ek_winograd_pixels)(const float *image, int height, int width, size_t k, int h, int w, const float *zeros, float *to,
        size_t point);

#endif
