#include "image.h"

#include <string.h>

#include "../core/sha256.h"
#include "ed25519.h"

/* MCUboot's bootutil/image.h. */
enum { MAGIC = 0x96f3b83d, TRAILER_MAGIC = 0x6907, LINKED_FOR_ITS_PLACE = 0x100 };
enum { KEY_HASH = 0x01, SHA256 = 0x10, ED25519 = 0x24 };
enum { LOAD_ADDRESS = 4, HEADER_BYTES = 8, PROTECTED_BYTES = 10, PROGRAM_BYTES = 12, FLAGS = 16, VERSION = 20 };
enum { VECTORS_ALIGNED = 512, MOST_HEADER = 4096, LEAST_PROGRAM = 8 /* stack and reset vector */, TRAILER_HEAD = 4, VALUE_HEAD = 4 };

typedef struct {
    const uint8_t *key_hash, *hash, *signature;
} trailer;

static uint32_t u16(const uint8_t *b) { return (uint32_t)b[0] | (uint32_t)b[1] << 8; }

static uint32_t u32(const uint8_t *b) { return u16(b) | u16(b + 2) << 16; }

ek_image_verdict ek_image_header(const uint8_t *bytes, ek_area slot, ek_image *image) {
    if (u32(bytes) != (uint32_t)MAGIC)
        return EK_IMAGE_MISSING;
    uint32_t header = u16(bytes + HEADER_BYTES), program = u32(bytes + PROGRAM_BYTES);
    *image = (ek_image){bytes[VERSION], bytes[VERSION + 1], (uint16_t)u16(bytes + VERSION + 2), u32(bytes + VERSION + 4),
                        header, program, NULL};
    if (header == 0 || header > MOST_HEADER || header % VECTORS_ALIGNED || u16(bytes + PROTECTED_BYTES) || program < LEAST_PROGRAM ||
        program > slot.bytes - header || u32(bytes + FLAGS) != LINKED_FOR_ITS_PLACE)
        return EK_IMAGE_BAD_HEADER;
    return u32(bytes + LOAD_ADDRESS) == slot.at ? EK_IMAGE_WHOLE : EK_IMAGE_BAD_ADDRESS;
}

/* Takes a value that must be there once, with its own length. */
static bool take(const uint8_t **place, const uint8_t *value, uint32_t length, uint32_t wanted) {
    if (*place || length != wanted)
        return false;
    *place = value;
    return true;
}

/* Values of other kinds are passed over: the signature does not cover the trailer, so none of them may mean anything. */
static bool read_trailer(const uint8_t *at, uint32_t room, trailer *t) {
    *t = (trailer){NULL, NULL, NULL};
    if (room < TRAILER_HEAD || u16(at) != TRAILER_MAGIC || u16(at + 2) < TRAILER_HEAD || u16(at + 2) > room)
        return false;
    const uint8_t *end = at + u16(at + 2);
    for (at += TRAILER_HEAD; at < end;) {
        if (end - at < VALUE_HEAD || (uint32_t)(end - at - VALUE_HEAD) < u16(at + 2))
            return false;
        const uint8_t *value = at + VALUE_HEAD;
        uint32_t kind = u16(at), length = u16(at + 2);
        if ((kind == KEY_HASH && !take(&t->key_hash, value, length, 32)) || (kind == SHA256 && !take(&t->hash, value, length, 32)) ||
            (kind == ED25519 && !take(&t->signature, value, length, 64)))
            return false;
        at = value + length;
    }
    return t->key_hash && t->hash && t->signature;
}

static ek_image_verdict look(const ek_flash *flash, int slot, ek_image *image, trailer *t) {
    ek_area area = flash->slot[slot];
    const uint8_t *bytes = ek_flash_at(flash, area.at);
    ek_image_verdict verdict = ek_image_header(bytes, area, image);
    if (verdict != EK_IMAGE_WHOLE)
        return verdict;
    uint32_t covered = image->vectors + image->program;
    if (!read_trailer(bytes + covered, area.bytes - covered, t))
        return EK_IMAGE_BAD_TRAILER;
    image->hash = t->hash;
    return EK_IMAGE_WHOLE;
}

ek_image_verdict ek_image_open(const ek_flash *flash, int slot, ek_image *image) {
    trailer t;
    return look(flash, slot, image, &t);
}

/* The SHA-256 of a public key in the form that tools hash: a SubjectPublicKeyInfo (RFC 8410). */
static void hash_key(const uint8_t key[32], uint8_t digest[32]) {
    static const uint8_t head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
    ek_sha256 sha;
    ek_sha256_start(&sha);
    ek_sha256_add(&sha, head, sizeof head);
    ek_sha256_add(&sha, key, 32);
    ek_sha256_finish(&sha, digest);
}

ek_image_verdict ek_image_verify(const ek_flash *flash, int slot, const uint8_t key[32], ek_image *image) {
    trailer t;
    uint8_t digest[32];
    ek_image_verdict verdict = look(flash, slot, image, &t);
    if (verdict != EK_IMAGE_WHOLE)
        return verdict;
    hash_key(key, digest);
    if (memcmp(digest, t.key_hash, sizeof digest) != 0)
        return EK_IMAGE_OTHER_KEY;
    ek_sha256_of(ek_flash_at(flash, flash->slot[slot].at), image->vectors + image->program, digest);
    if (memcmp(digest, t.hash, sizeof digest) != 0)
        return EK_IMAGE_CHANGED;
    return ek_ed25519_verify(key, digest, sizeof digest, t.signature) ? EK_IMAGE_WHOLE : EK_IMAGE_FORGED;
}
