/* Seeded random numbers by place: docs/program-format.md, "Randomness". */
#ifndef EK_RANDOM_H
#define EK_RANDOM_H

#include "simd.h"

static const uint64_t ek_golden = 0x9E3779B97F4A7C15u;

/* The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). */
EK_INLINE uint64_t ek_mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* The key of a stream; `step` is the session's seed and the runs done. */
EK_INLINE uint64_t ek_random_key(const int32_t *step, int32_t stream) {
    uint64_t key = ek_mix(((uint64_t)(uint32_t)step[0] << 32 | (uint32_t)step[1]) + ek_golden);
    return ek_mix(key + ek_golden * ((uint64_t)stream + 1));
}

/* 24 bits for element i. */
EK_INLINE uint64_t ek_draw(uint64_t key, uint64_t i) { return ek_mix(key + ek_golden * (i + 1)) >> 40; }

#endif
