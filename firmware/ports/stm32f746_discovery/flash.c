/* The board's flash: an STM32F746's own (RM0385, 3), here, and the one behind the QUADSPI, by address (qspi.c). This one has eight
 * sectors, programmed word by word, in one bank: while it erases or programs, the processor waits wherever it needs an instruction
 * from it, up to 2 s for a sector of 256 KB. */
#include <string.h>

#include "../../boot/flash.h"
#include "../../cortex_m/core.h"
#include "../../cortex_m/mcu.h"
#include "qspi.h"

#define FLASH(offset) EK_REGISTER(0x40023C00 + (offset))

enum { KEYR = 0x04, SR = 0x0C, CR = 0x10 };
enum { KEY1 = 0x45670123, FAULTS = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7, BUSY = 1 << 16 }; /* SR */
enum { PROGRAM = 1, ERASE = 1 << 1, SECTOR_AT = 3, BY_WORDS = 2 << 8, START = 1 << 16 };         /* CR */
#define KEY2 0xCDEF89ABu
#define LOCK (1u << 31)

static const uint32_t sectors[] = {0x08000000, 0x08008000, 0x08010000, 0x08018000, 0x08020000, 0x08040000, 0x08080000, 0x080C0000, 0x08100000};
enum { SECTORS = sizeof sectors / sizeof *sectors - 1 };

ek_area ek_mcu_flash_sector(uint32_t address) {
    uint32_t i = 0;
    if (ek_qspi_has(address))
        return ek_qspi_sector(address);
    while (i + 1 < SECTORS && sectors[i + 1] <= address)
        i++;
    return (ek_area){sectors[i], sectors[i + 1] - sectors[i]};
}

static bool finish(void) {
    __asm volatile("dsb" ::: "memory");
    while (FLASH(SR) & BUSY)
        ;
    return !(FLASH(SR) & FAULTS);
}

static void unlock(void) {
    finish();
    if (FLASH(CR) & LOCK) {
        FLASH(KEYR) = KEY1;
        FLASH(KEYR) = KEY2;
    }
    FLASH(SR) = FAULTS; /* a 1 clears */
}

static void lock(void) { FLASH(CR) = LOCK; }

/* Every sector that begins there; `address` is where one does. */
bool ek_mcu_flash_erase(uint32_t address, uint32_t bytes) {
    bool good = false;
    if (ek_qspi_has(address))
        return ek_qspi_erase(address, bytes);
    unlock();
    for (uint32_t i = 0; i < SECTORS; i++) {
        if (sectors[i] < address || sectors[i] - address >= bytes)
            continue;
        FLASH(CR) = ERASE | i << SECTOR_AT | BY_WORDS;
        FLASH(CR) |= START;
        good = finish();
        ek_cache_forget(sectors[i], sectors[i + 1] - sectors[i]);
        ek_mcu_watchdog_feed();
        if (!good)
            break;
    }
    lock();
    return good;
}

bool ek_mcu_flash_write(uint32_t address, const void *bytes, uint32_t size) {
    const uint8_t *from = bytes;
    if (ek_qspi_has(address))
        return ek_qspi_write(address, bytes, size);
    if (address % EK_FLASH_UNIT || size % EK_FLASH_UNIT)
        return false;
    bool good = true;
    unlock();
    FLASH(CR) = PROGRAM | BY_WORDS;
    for (uint32_t i = 0; good && i < size; i += 4) {
        uint32_t word;
        memcpy(&word, from + i, sizeof word);
        EK_REGISTER(address + i) = word;
        good = finish();
    }
    lock();
    ek_cache_forget(address, size);
    return good && memcmp((const void *)(uintptr_t)address, bytes, size) == 0;
}
