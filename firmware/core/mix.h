/* Numbers that look drawn at random from ones that do not (docs/program-format.md, "Randomness"). */
#ifndef EK_MIX_H
#define EK_MIX_H

#include <stdint.h>

/* The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
static inline uint64_t ek_mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

#endif
