/* Seeded random numbers by place: docs/program-format.md, "Randomness". */
#ifndef EK_RANDOM_H
#define EK_RANDOM_H

#include "mix.h"
#include "simd.h"

static const uint64_t ek_golden = 0x9E3779B97F4A7C15u;

/* The key of a stream; `step` is the session's seed and the runs done. */
EK_INLINE uint64_t ek_random_key(const int32_t *step, int32_t stream) {
    uint64_t key = ek_mix(((uint64_t)(uint32_t)step[0] << 32 | (uint32_t)step[1]) + ek_golden);
    return ek_mix(key + ek_golden * ((uint64_t)stream + 1));
}

/* 24 bits for element i. */
EK_INLINE uint64_t ek_draw(uint64_t key, uint64_t i) { return ek_mix(key + ek_golden * (i + 1)) >> 40; }

#endif
