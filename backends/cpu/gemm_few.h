/* Products with so few rows that they wait for B, each float of which is multiplied by a few others only. B is read where it lies, once,
 * in the order in which it lies there; what comes next is asked for meanwhile. */
#ifndef EK_GEMM_FEW_H
#define EK_GEMM_FEW_H

#include "gemm.h"

/* Two tiles' rows, or one's columns. */
enum { EK_FEW_ROWS = 2 * EK_TILE_ROWS < EK_PANEL ? 2 * EK_TILE_ROWS : EK_PANEL };

int EK_NAME(ek_gemm_is_few)(const ek_gemm *g);
size_t EK_NAME(ek_gemm_few_scratch)(size_t m, size_t k, int threads);
void EK_NAME(ek_gemm_few)(const ek_gemm *g, ek_pool *pool, void *scratch);

#endif
