/* SHA-512 (FIPS 180-4), for signatures: short messages, small rather than fast. */
#ifndef EK_SHA512_H
#define EK_SHA512_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t state[8];
    uint64_t bytes;     /* hashed so far */
    uint8_t block[128]; /* what fills no whole block yet */
} ek_sha512;

void ek_sha512_start(ek_sha512 *sha);
void ek_sha512_add(ek_sha512 *sha, const void *data, size_t bytes);
void ek_sha512_finish(ek_sha512 *sha, uint8_t digest[64]);

#endif
