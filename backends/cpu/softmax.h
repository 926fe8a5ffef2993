/* Rows of class scores: their maximum and the sum of their exponentials. */
#ifndef EK_SOFTMAX_H
#define EK_SOFTMAX_H

#include <math.h>

#include "parallel.h"
#include "vecmath.h"

/* The largest of a row; it may miss a NaN, which then shows in the sum of the exponentials. */
EK_INLINE float ek_row_max(const float *x, size_t n) {
    ek_vf best = ek_splat(x[0]);
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) best = ek_at_least(best, ek_load(x + i));
    float largest = x[0];
    for (int k = 0; k < EK_LANES; k++) largest = best[k] > largest ? best[k] : largest;
    for (; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* The sum of exp(x - max); the terms too where `to` is not NULL, which may be x. */
EK_INLINE double ek_row_exp(const float *x, float max, float *to, size_t n) {
    ek_vf sum = {0};
    double total = 0.0;
    size_t i = 0;
    for (; i + EK_LANES <= n; i += EK_LANES) {
        ek_vf e = ek_exp(ek_load(x + i) - max);
        if (to) ek_store(to + i, e);
        sum += e;
    }
    for (int k = 0; k < EK_LANES; k++) total += sum[k];
    int rest = (int)(n - i);
    if (rest) {
        ek_vf e = ek_exp(ek_load_part(x + i, rest) - max);
        if (to) ek_store_part(to + i, e, rest);
        for (int k = 0; k < rest; k++) total += e[k];
    }
    return total;
}

#endif
