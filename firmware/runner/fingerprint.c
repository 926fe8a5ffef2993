#include "fingerprint.h"

#include <string.h>

/* The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Four lanes of multiply and rotate, so that products overlap: a memory's speed on processors that multiply in 4 cycles. */
uint64_t ek_fingerprint(uint64_t seed, const void *bytes, size_t size) {
    enum { LANES = 4, PART = LANES * sizeof(uint64_t) };
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    const uint8_t *at = bytes;
    uint64_t lane[LANES], word[LANES], result = mix(seed + size);
    for (int i = 0; i < LANES; i++)
        lane[i] = mix(seed + (uint64_t)i * odd);
    for (size_t left = size; left > 0;) {
        size_t part = left < PART ? left : PART;
        memset(word, 0, sizeof word);
        memcpy(word, at, part);
        for (int i = 0; i < LANES; i++) {
            lane[i] = (lane[i] ^ word[i]) * odd;
            lane[i] = lane[i] << 29 | lane[i] >> 35;
        }
        at += part;
        left -= part;
    }
    for (int i = 0; i < LANES; i++)
        result = mix(result ^ lane[i]) + (uint64_t)i;
    return result;
}
