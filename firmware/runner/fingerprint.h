/* 64 bits that tell bytes apart which were cut, changed or belong elsewhere. Fast, and no protection against somebody who tries. */
#ifndef EK_FINGERPRINT_H
#define EK_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

uint64_t ek_fingerprint(uint64_t seed, const void *bytes, size_t size);

#endif
