/* Ed25519 signatures (RFC 8032), verification alone. Nothing here is secret, so nothing takes constant time. */
#ifndef EK_ED25519_H
#define EK_ED25519_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether `signature` is the message's by the owner of `key`. Stricter than RFC 8032 asks for where implementations differ: S is below
 * the group's order, point encodings are canonical, the key's point is not of small order, and the equation holds without cofactor. */
bool ek_ed25519_verify(const uint8_t key[32], const void *message, size_t bytes, const uint8_t signature[64]);

#endif
