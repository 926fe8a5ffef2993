/* A flash whose power is cut, for the tests that define CHECK, ADDRESS, SECTOR, `memory`, `operation`, `cut`, `noise` and `power_is_gone`. */
#ifndef EK_CUT_FLASH_H
#define EK_CUT_FLASH_H

static uint8_t random_byte(void) { return (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24); }

static bool power_fails(void) { return operation++ == cut; }

static ek_area sector(uint32_t at) { return (ek_area){at / SECTOR * SECTOR, SECTOR}; }

/* A cut leaves each bit as it was or as it was to be. */
static bool erase(uint32_t at, uint32_t bytes) {
    for (uint32_t from = at - ADDRESS; from < at - ADDRESS + bytes; from += bytes < SECTOR ? bytes : SECTOR) {
        bool fails = power_fails();
        for (uint32_t i = from; i < from + (bytes < SECTOR ? bytes : SECTOR); i++)
            memory[i] |= fails ? random_byte() : 0xFF;
        if (fails)
            longjmp(power_is_gone, 1);
    }
    return true;
}

static bool write_units(uint32_t at, const void *bytes, uint32_t size) {
    const uint8_t *from = bytes;
    CHECK(at % EK_FLASH_UNIT == 0 && size % EK_FLASH_UNIT == 0 && at - ADDRESS + size <= sizeof memory);
    for (uint32_t unit = 0; unit < size; unit += EK_FLASH_UNIT) {
        bool fails = power_fails();
        for (uint32_t i = unit; i < unit + EK_FLASH_UNIT; i++) {
            CHECK(memory[at - ADDRESS + i] == 0xFF); /* nothing is written twice without being erased */
            memory[at - ADDRESS + i] &= (uint8_t)(from[i] | (fails ? random_byte() : 0));
        }
        if (fails)
            longjmp(power_is_gone, 1);
    }
    return true;
}

#endif
