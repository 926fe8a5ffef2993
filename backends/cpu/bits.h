/* One bit an element, as docs/program-format.md lays it out: every row starts on a byte, the pad bits are
 * unspecified. */
#ifndef EK_BITS_H
#define EK_BITS_H

#include "parallel.h"
#include "simd.h"

/* Elements that are handled at a time: two bytes of a mask, one to four vectors. */
enum { EK_GROUP = 16, EK_GROUP_VECTORS = EK_GROUP / EK_LANES };

typedef struct {
    ek_vf v[EK_GROUP_VECTORS];
} ek_group;

/* The array as rows whose bits are contiguous: a single row where no row has pad bits. */
typedef struct {
    size_t rows, columns, row_bytes;
} ek_bit_rows;

static inline ek_bit_rows ek_rows_of(const ek_tensor *t) {
    size_t n = ek_elements(t), columns = ek_columns(t);
    if (columns % 8 == 0) return (ek_bit_rows){1, n, n / 8};
    return (ek_bit_rows){n / columns, columns, (columns + 7) / 8};
}

/* A thread's part: some of the rows, or some of the one row's columns. */
typedef struct {
    ek_range rows, columns;
} ek_bit_part;

static inline ek_bit_part ek_bit_share(ek_bit_rows all, int index, int count) {
    if (all.rows == 1) return (ek_bit_part){{0, 1}, ek_share(all.columns, 64, index, count)};
    return (ek_bit_part){ek_share(all.rows, 1, index, count), {0, all.columns}};
}

EK_INLINE ek_group ek_load_group(const float *p, size_t n) {
    ek_group g;
    float part[EK_GROUP] = {0};
    if (n < EK_GROUP) {
        memcpy(part, p, n * sizeof *p);
        p = part;
    }
    EK_UNROLL
    for (int i = 0; i < EK_GROUP_VECTORS; i++) g.v[i] = ek_load(p + i * EK_LANES);
    return g;
}

EK_INLINE void ek_store_group(float *p, ek_group g, size_t n) {
    float part[EK_GROUP];
    float *to = n < EK_GROUP ? part : p;
    EK_UNROLL
    for (int i = 0; i < EK_GROUP_VECTORS; i++) ek_store(to + i * EK_LANES, g.v[i]);
    if (n < EK_GROUP) memcpy(p, part, n * sizeof *p);
}

/* The first n (1 … EK_GROUP) bits at a byte. */
EK_INLINE uint32_t ek_load_group_bits(const uint8_t *p, size_t n) {
    return n > 8 ? (uint32_t)p[0] | (uint32_t)p[1] << 8 : p[0];
}

EK_INLINE void ek_store_group_bits(uint8_t *p, uint32_t bits, size_t n) {
    p[0] = (uint8_t)bits;
    if (n > 8) p[1] = (uint8_t)(bits >> 8);
}

/* v * scale where the bit is set, 0 elsewhere. */
EK_INLINE ek_group ek_keep(ek_group g, uint32_t bits, float scale) {
    EK_UNROLL
    for (int i = 0; i < EK_GROUP_VECTORS; i++)
        g.v[i] = ek_select(ek_truth_of(bits >> (i * EK_LANES)), g.v[i] * scale, (ek_vf){0});
    return g;
}

#endif
