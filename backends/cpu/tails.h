/* The first n lanes of a vector: all of them where n is EK_LANES or more, none where it is 0 or less. */
#ifndef EK_TAILS_H
#define EK_TAILS_H

#include <stddef.h>

#include "simd.h"

EK_INLINE ek_vf ek_load_n(const float *p, ptrdiff_t n) {
    if (n >= EK_LANES) return ek_load(p);
    return n > 0 ? ek_load_part(p, (int)n) : (ek_vf){0};
}

EK_INLINE void ek_store_n(float *p, ek_vf v, ptrdiff_t n) {
    if (n >= EK_LANES) ek_store(p, v);
    else if (n > 0) ek_store_part(p, v, (int)n);
}

#endif
