/* The inner product of int8 matrices: SIDE rows by WIDE columns of sums, in registers over the whole depth. Both operands lie packed
 * as int16, by fours of depths: 0 and 2 of each row or column, then 1 and 3, as SXTB16 makes them. */
#ifndef EK_Q_TILE_H
#define EK_Q_TILE_H

#include <string.h>

#include "dsp.h"
#include "simd.h"

enum { SIDE = 2, WIDE = 4 };
enum { DEEP = 8 }; /* depths that a tile takes at a time */

/* Four depths of the rows. */
typedef struct {
    uint32_t even[SIDE], odd[SIDE];
} ek_q_rows;

/* Four depths of the columns. */
typedef struct {
    uint32_t even[WIDE], odd[WIDE];
} ek_quad;

/* Columns, and what their sums begin with. */
typedef struct {
    int32_t start[WIDE];
    ek_quad quads[];
} ek_q_columns;

#if defined(__ARM_FEATURE_DSP)

/* It takes all 14 registers: 8 sums, two pointers, two words of the rows, two of the columns. Each is given its own, since a compiler
 * does not find such a tight fit (pairs that are loaded as one are even and odd: A32, unlike T32, has no others), and the end of the
 * rows is kept in a float register. */
EK_INLINE void ek_tile(const ek_q_rows *rows, const ek_q_columns *columns, size_t quads, int32_t sum[SIDE][WIDE]) {
    register const void *x __asm("r0") = rows, *w __asm("r1") = columns;
    register int32_t a0 __asm("r4"), a1 __asm("r5"), a2 __asm("r6"), a3 __asm("r7");
    register int32_t b0 __asm("r10"), b1 __asm("r11"), b2 __asm("r12"), b3 __asm("lr");
    register uint32_t a __asm("r2"), b __asm("r3"), u __asm("r8"), v __asm("r9");
    const ek_q_rows *end = rows + quads;
    float kept;
    __builtin_memcpy(&kept, &end, sizeof kept);
#define EK_TWO_DEPTHS \
    "ldrd %[a], %[b], [%[x]], #8\n ldrd %[u], %[v], [%[w]], #8\n" \
    "smlad %[a0], %[a], %[u], %[a0]\n smlad %[b0], %[b], %[u], %[b0]\n" \
    "smlad %[a1], %[a], %[v], %[a1]\n smlad %[b1], %[b], %[v], %[b1]\n" \
    "ldrd %[u], %[v], [%[w]], #8\n" \
    "smlad %[a2], %[a], %[u], %[a2]\n smlad %[b2], %[b], %[u], %[b2]\n" \
    "smlad %[a3], %[a], %[v], %[a3]\n smlad %[b3], %[b], %[v], %[b3]\n"
    __asm volatile("ldrd %[a0], %[a1], [%[w]], #8\n ldrd %[a2], %[a3], [%[w]], #8\n"
                   "mov %[b0], %[a0]\n mov %[b1], %[a1]\n mov %[b2], %[a2]\n mov %[b3], %[a3]\n"
                   "1:\n" EK_TWO_DEPTHS EK_TWO_DEPTHS EK_TWO_DEPTHS EK_TWO_DEPTHS
                   "vmov %[a], %[kept]\n cmp %[a], %[x]\n bhi 1b\n"
                   : [a0] "=&r"(a0), [a1] "=&r"(a1), [a2] "=&r"(a2), [a3] "=&r"(a3), [b0] "=&r"(b0), [b1] "=&r"(b1), [b2] "=&r"(b2),
                     [b3] "=&r"(b3), [a] "=&r"(a), [b] "=&r"(b), [u] "=&r"(u), [v] "=&r"(v), [x] "+r"(x), [w] "+r"(w)
                   : [kept] "t"(kept)
                   : "cc", "memory");
#undef EK_TWO_DEPTHS
    sum[0][0] = a0, sum[0][1] = a1, sum[0][2] = a2, sum[0][3] = a3;
    sum[1][0] = b0, sum[1][1] = b1, sum[1][2] = b2, sum[1][3] = b3;
}

#else

EK_INLINE void ek_tile(const ek_q_rows *x, const ek_q_columns *columns, size_t quads, int32_t sum[SIDE][WIDE]) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < WIDE; j++) {
            sum[i][j] = columns->start[j];
            for (size_t q = 0; q < quads; q++) {
                sum[i][j] = ek_both(x[q].even[i], columns->quads[q].even[j], sum[i][j]);
                sum[i][j] = ek_both(x[q].odd[i], columns->quads[q].odd[j], sum[i][j]);
            }
        }
}

#endif

#endif
