/* A flash in RAM, for programs without hardware: two log sectors, two slots and two for programs, erased at the start. */
#ifndef EK_RAM_FLASH_H
#define EK_RAM_FLASH_H

#include <string.h>

#include "../boot/flash.h"

enum { EK_RAM_FLASH_ADDRESS = 0x60000000, EK_RAM_LOG = 4096 };
#ifndef EK_RAM_SLOT
#define EK_RAM_SLOT (128 * 1024)
#endif

#ifndef EK_RAM_PROGRAM
#define EK_RAM_PROGRAM (2 * 1024 * 1024)
#endif
enum { EK_RAM_PROGRAMS_ADDRESS = EK_RAM_FLASH_ADDRESS + 2 * EK_RAM_LOG + 2 * EK_RAM_SLOT };

static _Alignas(64) uint8_t ek_ram_flash_bytes[2 * EK_RAM_LOG + 2 * EK_RAM_SLOT + 2 * EK_RAM_PROGRAM];

static ek_area ek_ram_flash_sector(uint32_t at) { return (ek_area){at / EK_RAM_LOG * EK_RAM_LOG, EK_RAM_LOG}; }

static bool ek_ram_flash_erase(uint32_t at, uint32_t bytes) {
    memset(ek_ram_flash_bytes + (at - EK_RAM_FLASH_ADDRESS), 0xFF, bytes);
    return true;
}

static bool ek_ram_flash_write(uint32_t at, const void *bytes, uint32_t size) {
    uint8_t *to = ek_ram_flash_bytes + (at - EK_RAM_FLASH_ADDRESS);
    for (uint32_t i = 0; i < size; i++)
        to[i] &= ((const uint8_t *)bytes)[i];
    return memcmp(to, bytes, size) == 0;
}

static const ek_flash ek_ram_flash = {
    .memory = ek_ram_flash_bytes,
    .address = EK_RAM_FLASH_ADDRESS,
    .log = {{EK_RAM_FLASH_ADDRESS, EK_RAM_LOG}, {EK_RAM_FLASH_ADDRESS + EK_RAM_LOG, EK_RAM_LOG}},
    .slot = {{EK_RAM_FLASH_ADDRESS + 2 * EK_RAM_LOG, EK_RAM_SLOT},
             {EK_RAM_FLASH_ADDRESS + 2 * EK_RAM_LOG + EK_RAM_SLOT, EK_RAM_SLOT}},
    .program = {{EK_RAM_PROGRAMS_ADDRESS, EK_RAM_PROGRAM}, {EK_RAM_PROGRAMS_ADDRESS + EK_RAM_PROGRAM, EK_RAM_PROGRAM}},
    .sector = ek_ram_flash_sector,
    .erase = ek_ram_flash_erase,
    .write = ek_ram_flash_write,
};

#endif
