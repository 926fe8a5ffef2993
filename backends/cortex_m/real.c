/* No copies: the products of this folder read integers as they are. */
#include "real.h"

#include "quant.h"

size_t EK_NAME(ek_real_bytes)(const ek_tensor *t) {
    (void)t;
    return 0;
}

ek_real EK_NAME(ek_real_weight)(const ek_tensor *t, const void *w, const float *scale, float *to) {
    (void)to;
    return t->dtype == EK_F32 ? (ek_real){.data = w} : (ek_real){.whole = w, .scale = scale};
}

ek_real EK_NAME(ek_real_activation)(const ek_tensor *t, const void *x, const float *quant, float *to) {
    (void)to;
    if (t->dtype == EK_F32) return (ek_real){.data = x};
    return (ek_real){.whole = x, .scale = quant, .zero = ek_quant_of(quant).zero};
}
