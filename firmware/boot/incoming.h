/* Bytes that come into an area of flash one after the other, and go on after a cut of power where it left them. A note in the area's
 * last units, written before them, tells what they are; how many are there is seen by looking for the last unit that is not blank.
 * Nothing that is found is trusted: that unit is compared with what comes, and whoever uses the whole verifies it. */
#ifndef EK_INCOMING_H
#define EK_INCOMING_H

#include "flash.h"

typedef struct {
    const ek_flash *flash;
    ek_area area;
    uint32_t length, have; /* bytes; `length` is 0 where nothing comes */
    uint8_t digest[32];    /* of all of them, as the sender gave it */
    bool has_digest;
    uint8_t unit[EK_FLASH_UNIT]; /* of the last bytes, those that do not fill a unit yet */
} ek_incoming;

/* Whether an earlier start left bytes of the same digest and length in the area. Then `in` goes on with them. */
bool ek_incoming_resume(ek_incoming *in, const ek_flash *flash, ek_area area, uint32_t length, const uint8_t digest[32]);

/* Into an area that is erased for it, as far as it goes. `digest` may be NULL: then it does not outlive a restart, nor where the area has no room for the
 * note. False: the flash failed, and nothing comes. */
bool ek_incoming_begin(ek_incoming *in, const ek_flash *flash, ek_area area, uint32_t length, const uint8_t *digest);

/* The next bytes, at most as many as are missing. Where a cut has left a unit half-written, its sector is erased and `have` is smaller
 * than before: the sender goes on from there. False: the flash failed, and nothing comes any more. */
bool ek_incoming_add(ek_incoming *in, const uint8_t *bytes, size_t size);

/* Erases the sectors of an area that hold its first `bytes`, at least one, and before them the note's: bytes without one are none that
 * anything goes on with. */
bool ek_incoming_clear(const ek_flash *flash, ek_area area, uint32_t bytes);

#endif
