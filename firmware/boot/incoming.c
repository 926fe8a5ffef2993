#include "incoming.h"

#include <string.h>

#include "../runner/crc32.h"

enum { MAGIC = 0x4E494B45 /* "EKIN" */ };

typedef struct {
    uint32_t magic, length;
    uint8_t digest[32], zeros[20];
    uint32_t crc; /* of all that */
} note;

_Static_assert(sizeof(note) == 2 * EK_FLASH_UNIT, "whole units");

static uint32_t note_at(ek_area area) { return area.at + area.bytes - (uint32_t)sizeof(note); }

static bool has_room(ek_area area, uint32_t length) { return area.bytes >= sizeof(note) && length <= area.bytes - sizeof(note); }

static note make_note(uint32_t length, const uint8_t digest[32]) {
    note n = {.magic = MAGIC, .length = length};
    memcpy(n.digest, digest, sizeof n.digest);
    n.crc = ek_crc32(&n, offsetof(note, crc));
    return n;
}

static bool write_note(const ek_incoming *in) {
    note n = make_note(in->length, in->digest);
    return in->flash->write(note_at(in->area), &n, sizeof n);
}

static bool is_blank(const uint8_t *unit) {
    for (int i = 0; i < EK_FLASH_UNIT; i++)
        if (unit[i] != 0xFF)
            return false;
    return true;
}

static const uint8_t *unit_at(const ek_incoming *in, uint32_t offset) { return ek_flash_at(in->flash, in->area.at + offset); }

/* Where the last unit begins that holds anything: what it holds may be half of what was to be written. */
static uint32_t last_written(const ek_incoming *in) {
    uint32_t at = (in->length - 1) / EK_FLASH_UNIT * EK_FLASH_UNIT;
    while (at > 0 && is_blank(unit_at(in, at)))
        at -= EK_FLASH_UNIT;
    return at;
}

bool ek_incoming_resume(ek_incoming *in, const ek_flash *flash, ek_area area, uint32_t length, const uint8_t digest[32]) {
    if (length == 0 || !has_room(area, length))
        return false;
    note n = make_note(length, digest);
    if (memcmp(ek_flash_at(flash, note_at(area)), &n, sizeof n) != 0)
        return false;
    *in = (ek_incoming){.flash = flash, .area = area, .length = length, .has_digest = true};
    memcpy(in->digest, digest, sizeof in->digest);
    in->have = last_written(in);
    return true;
}

bool ek_incoming_clear(const ek_flash *flash, ek_area area, uint32_t bytes) {
    uint32_t last = flash->sector(area.at + area.bytes - 1).at;
    ek_area sector = flash->sector(area.at + bytes - 1);
    uint32_t end = sector.at < last ? sector.at + sector.bytes : last;
    return flash->erase(last, area.at + area.bytes - last) && (end == area.at || flash->erase(area.at, end - area.at));
}

bool ek_incoming_begin(ek_incoming *in, const ek_flash *flash, ek_area area, uint32_t length, const uint8_t *digest) {
    *in = (ek_incoming){.flash = flash, .area = area};
    if (!ek_incoming_clear(flash, area, length))
        return false;
    in->length = length;
    in->has_digest = digest != NULL;
    if (!digest)
        return true;
    memcpy(in->digest, digest, sizeof in->digest);
    if (!has_room(area, length) || write_note(in))
        return true;
    in->length = 0;
    return false;
}

/* Flash takes no second write, so what is half-written goes, and what shares its sector. */
static bool erase_sector_of(ek_incoming *in, uint32_t at) {
    ek_area sector = in->flash->sector(at);
    in->have = sector.at - in->area.at;
    if (!in->flash->erase(sector.at, sector.bytes))
        return false;
    return note_at(in->area) - sector.at >= sector.bytes || write_note(in);
}

/* The unit that ends with the last byte that there is; what a cut left there already, or is as erased flash, is not written again. */
static bool write_unit(ek_incoming *in) {
    uint32_t at = (in->have - 1) / EK_FLASH_UNIT * EK_FLASH_UNIT;
    if (memcmp(unit_at(in, at), in->unit, EK_FLASH_UNIT) == 0)
        return true;
    return is_blank(unit_at(in, at)) ? in->flash->write(in->area.at + at, in->unit, EK_FLASH_UNIT) : erase_sector_of(in, in->area.at + at);
}

bool ek_incoming_add(ek_incoming *in, const uint8_t *bytes, size_t size) {
    uint32_t end = in->have + (uint32_t)size;
    while (in->have < end) {
        if (in->have % EK_FLASH_UNIT == 0)
            memset(in->unit, 0xFF, EK_FLASH_UNIT);
        in->unit[in->have++ % EK_FLASH_UNIT] = *bytes++;
        if (in->have % EK_FLASH_UNIT && in->have < in->length)
            continue;
        uint32_t before = in->have;
        if (!write_unit(in)) {
            in->length = 0;
            return false;
        }
        if (in->have < before)
            break;
    }
    return true;
}
