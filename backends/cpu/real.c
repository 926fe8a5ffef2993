/* Float copies of int8 operands: their products have more multiply-adds than they have elements, and those run on vectors. */
#include "real.h"

#include "quant.h"

size_t EK_NAME(ek_real_bytes)(const ek_tensor *t) {
    return t->dtype == EK_F32 ? 0 : (ek_elements(t) * sizeof(float) + 63) / 64 * 64;
}

ek_real EK_NAME(ek_real_weight)(const ek_tensor *t, const void *w, const float *scale, float *to) {
    if (t->dtype == EK_F32) return (ek_real){.data = w};
    const int8_t *q = w;
    size_t columns = ek_columns(t), rows = ek_elements(t) / columns;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++) to[r * columns + i] = (float)q[r * columns + i] * scale[i];
    return (ek_real){.data = to};
}

ek_real EK_NAME(ek_real_activation)(const ek_tensor *t, const void *x, const float *quant, float *to) {
    if (t->dtype == EK_F32) return (ek_real){.data = x};
    const int8_t *q = x;
    int32_t zero = ek_quant_of(quant).zero;
    for (size_t i = 0; i < ek_elements(t); i++) to[i] = (float)(q[i] - zero) * quant[0];
    return (ek_real){.data = to};
}
