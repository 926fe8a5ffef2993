/* SHA-256 (FIPS 180-4). */
#ifndef EK_SHA256_H
#define EK_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t bytes;     /* hashed so far */
    uint8_t block[64];  /* what fills no whole block yet */
} ek_sha256;

void ek_sha256_start(ek_sha256 *sha);
void ek_sha256_add(ek_sha256 *sha, const void *data, size_t bytes);
void ek_sha256_finish(ek_sha256 *sha, uint8_t digest[32]);

/* Digest of one piece of memory. */
void ek_sha256_of(const void *data, size_t bytes, uint8_t digest[32]);

#endif
