/* Which of the two images runs. What is decided is one record in flash, appended to a log of two sectors: an image is never moved, so
 * nothing can be cut half-way. The record that was written last, whole, counts; a record that a power cut left unfinished does not. */
#ifndef EK_SLOTS_H
#define EK_SLOTS_H

#include "image.h"

enum { EK_NO_SLOT = 0xFF };

/* `good` is what runs; `trial` is to run once, at the next start, and `tried` says that it has. */
typedef struct {
    uint8_t good, trial;
    bool tried;
} ek_slots;

/* What the log says; no slot at all where it says nothing. */
ek_slots ek_slots_read(const ek_flash *flash);

/* False: it could not be written, and what was there before counts. */
bool ek_slots_write(const ek_flash *flash, const ek_slots *slots);

/* What to start, for the bootloader: a trial that was not tried yet, else the good one, else any that is whole and signed. What it
 * must record is recorded before it returns. EK_NO_SLOT: there is no such image. */
int ek_slots_choose(const ek_flash *flash, const uint8_t key[32]);

#endif
