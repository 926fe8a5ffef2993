#ifndef EK_GEMM_PACK_H
#define EK_GEMM_PACK_H

#include "gemm.h"

/* Rows [k0, k0 + depth) × columns [n0, n0 + n), n ≤ EK_PANEL, of B as one panel: depth × EK_PANEL, zeros past n. */
void EK_NAME(ek_pack_panel)(const ek_weights *b, size_t k0, size_t depth, size_t n0, size_t n, float *to);

#endif
