#include "fingerprint.h"

#include <string.h>

#include "../core/mix.h"

/* Four lanes of multiply and rotate, so that products overlap: a memory's speed on processors that multiply in 4 cycles. */
uint64_t ek_fingerprint(uint64_t seed, const void *bytes, size_t size) {
    enum { LANES = 4, PART = LANES * sizeof(uint64_t) };
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    const uint8_t *at = bytes;
    uint64_t lane[LANES], word[LANES], result = ek_mix(seed + size);
    for (int i = 0; i < LANES; i++)
        lane[i] = ek_mix(seed + (uint64_t)i * odd);
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
        result = ek_mix(result ^ lane[i]) + (uint64_t)i;
    return result;
}
