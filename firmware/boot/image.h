/* Firmware images in MCUboot's format, signed with Ed25519 (docs/microcontrollers.md, "Firmware images"): header, program, and a
 * trailer of tagged values that holds the SHA-256 of both and its signature. Any tool that knows MCUboot makes and reads them. */
#ifndef EK_IMAGE_H
#define EK_IMAGE_H

#include "flash.h"

enum { EK_IMAGE_HEADER = 32 }; /* bytes that describe an image; the program begins later, where its vectors may lie */

typedef enum {
    EK_IMAGE_WHOLE,
    EK_IMAGE_MISSING,     /* no header */
    EK_IMAGE_BAD_HEADER,  /* sizes that cannot be, or something that this bootloader does not know */
    EK_IMAGE_BAD_ADDRESS, /* linked for another place */
    EK_IMAGE_BAD_TRAILER, /* cut, or not the values that it must have */
    EK_IMAGE_OTHER_KEY,   /* signed, by somebody whom this board does not trust */
    EK_IMAGE_CHANGED,     /* the SHA-256 is another one */
    EK_IMAGE_FORGED,      /* the signature is not the key's */
} ek_image_verdict;

typedef struct {
    uint8_t major, minor;
    uint16_t revision;
    uint32_t build;
    uint32_t vectors;  /* offset of the program's first byte */
    uint32_t program;  /* its bytes; the trailer follows */
    const uint8_t *hash; /* SHA-256 as the trailer has it */
} ek_image;

/* The header alone: EK_IMAGE_HEADER bytes of an image for `slot`. */
ek_image_verdict ek_image_header(const uint8_t *bytes, ek_area slot, ek_image *image);

/* Header and trailer of what lies in a slot: what it says it is. */
ek_image_verdict ek_image_open(const ek_flash *flash, int slot, ek_image *image);

/* Whether it may run: all of it, its SHA-256 and its signature. */
ek_image_verdict ek_image_verify(const ek_flash *flash, int slot, const uint8_t key[32], ek_image *image);

/* The public key that this program was built with. */
extern const uint8_t ek_image_key[32];

#endif
