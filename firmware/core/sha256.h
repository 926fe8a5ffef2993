/* SHA-256 (FIPS 180-4). */
#ifndef EK_SHA256_H
#define EK_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* Mixes `count` blocks of 64 bytes into the state. */
typedef void ek_sha256_mix(uint32_t state[8], const uint8_t *blocks, size_t count);

typedef struct {
    ek_sha256_mix *mix;
    uint32_t state[8];
    uint64_t bytes;     /* hashed so far */
    uint8_t block[64];  /* what fills no whole block yet */
} ek_sha256;

void ek_sha256_start(ek_sha256 *sha);
void ek_sha256_add(ek_sha256 *sha, const void *data, size_t bytes);
void ek_sha256_finish(ek_sha256 *sha, uint8_t digest[32]);

/* Digest of one piece of memory. */
void ek_sha256_of(const void *data, size_t bytes, uint8_t digest[32]);

/* For every processor, and the fastest for this one: by its own instructions for SHA-256, where it has them. */
ek_sha256_mix ek_sha256_mix_plain;
ek_sha256_mix *ek_sha256_mix_here(void);

extern const uint32_t ek_sha256_constants[64];

#endif
