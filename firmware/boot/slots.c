#include "slots.h"

#include <string.h>

#include "../runner/crc32.h"

/* A record: magic, sequence number, good, trial, tried, zeros, and the CRC of all that. One unit of the flash. */
enum { MAGIC = 0x474C4B45 /* "EKLG" */, SEQUENCE = 4, GOOD = 8, TRIAL = 9, TRIED = 10, CRC = 28 };

typedef struct {
    ek_slots slots;
    uint32_t sequence;
    int log; /* which sector has it; -1: there is none */
} record;

static uint32_t read_u32(const uint8_t *b) {
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void write_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static bool is_record(const uint8_t *unit) { return read_u32(unit) == MAGIC && read_u32(unit + CRC) == ek_crc32(unit, CRC); }

static bool is_slot(uint8_t number) { return number < EK_SLOTS || number == EK_NO_SLOT; }

static record newest(const ek_flash *flash) {
    record best = {.slots = {EK_NO_SLOT, EK_NO_SLOT, false}, .log = -1};
    for (int log = 0; log < EK_LOGS; log++)
        for (uint32_t at = 0; at < flash->log[log].bytes; at += EK_FLASH_UNIT) {
            const uint8_t *unit = ek_flash_at(flash, flash->log[log].at + at);
            if (!is_record(unit) || !is_slot(unit[GOOD]) || !is_slot(unit[TRIAL]))
                continue;
            if (best.log < 0 || read_u32(unit + SEQUENCE) > best.sequence)
                best = (record){{unit[GOOD], unit[TRIAL], unit[TRIED] != 0}, read_u32(unit + SEQUENCE), log};
        }
    return best;
}

ek_slots ek_slots_read(const ek_flash *flash) { return newest(flash).slots; }

static bool is_blank(const uint8_t *bytes, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        if (bytes[i] != 0xFF)
            return false;
    return true;
}

/* The first unit behind all that was ever written, whole or not: some flash takes no second write. Its size where there is none. */
static uint32_t end_of(const ek_flash *flash, ek_area log) {
    uint32_t end = log.bytes;
    while (end > 0 && is_blank(ek_flash_at(flash, log.at + end - EK_FLASH_UNIT), EK_FLASH_UNIT))
        end -= EK_FLASH_UNIT;
    return end;
}

static bool append(const ek_flash *flash, uint32_t at, const uint8_t unit[EK_FLASH_UNIT]) {
    return flash->write(at, unit, EK_FLASH_UNIT) && memcmp(ek_flash_at(flash, at), unit, EK_FLASH_UNIT) == 0;
}

/* Appended behind the newest record. Where that sector is full the other one is erased, which holds nothing that counts any more. */
bool ek_slots_write(const ek_flash *flash, const ek_slots *slots) {
    record last = newest(flash);
    uint8_t unit[EK_FLASH_UNIT] = {0};
    write_u32(unit, MAGIC);
    write_u32(unit + SEQUENCE, last.log < 0 ? 1 : last.sequence + 1);
    unit[GOOD] = slots->good;
    unit[TRIAL] = slots->trial;
    unit[TRIED] = slots->tried;
    write_u32(unit + CRC, ek_crc32(unit, CRC));
    int log = last.log < 0 ? 0 : last.log;
    ek_area here = flash->log[log], other = flash->log[1 - log];
    for (uint32_t end = end_of(flash, here); end < here.bytes; end += EK_FLASH_UNIT)
        if (append(flash, here.at + end, unit))
            return true;
    return flash->erase(other.at, other.bytes) && append(flash, other.at, unit);
}

static bool may_run(const ek_flash *flash, uint8_t slot, const uint8_t key[32]) {
    ek_image image;
    return slot < EK_SLOTS && ek_image_verify(flash, slot, key, &image) == EK_IMAGE_WHOLE;
}

/* What was booted for want of another is the good one from now on, so that the other slot can be written again. */
static int settle(const ek_flash *flash, const ek_slots *before, uint8_t slot) {
    if (slot != before->good)
        ek_slots_write(flash, &(ek_slots){slot, EK_NO_SLOT, false});
    return slot;
}

int ek_slots_choose(const ek_flash *flash, const uint8_t key[32]) {
    ek_slots slots = ek_slots_read(flash);
    if (slots.trial != EK_NO_SLOT && !slots.tried && may_run(flash, slots.trial, key)) {
        ek_slots tried = {slots.good, slots.trial, true};
        if (ek_slots_write(flash, &tried)) /* or it would be tried for ever */
            return slots.trial;
    }
    if (may_run(flash, slots.good, key))
        return slots.good;
    for (uint8_t slot = 0; slot < EK_SLOTS; slot++)
        if (slot != slots.good && may_run(flash, slot, key))
            return settle(flash, &slots, slot);
    return EK_NO_SLOT;
}
