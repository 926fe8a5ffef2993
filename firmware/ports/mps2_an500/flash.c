/* AN500 has no flash: its PSRAM behaves like one here, in sectors of 64 KB. A reset leaves it alone; QEMU keeps it in a file
 * (edgekit/virtual), so that it outlives the emulator as well. */
#include <string.h>

#include "../../boot/flash.h"
#include "../../cortex_m/mcu.h"

enum { SECTOR = 65536 };

ek_area ek_mcu_flash_sector(uint32_t address) { return (ek_area){address / SECTOR * SECTOR, SECTOR}; }

bool ek_mcu_flash_erase(uint32_t address, uint32_t bytes) {
    if (address % SECTOR || bytes % SECTOR)
        return false;
    memset((void *)(uintptr_t)address, 0xFF, bytes);
    return true;
}

/* Bits only become 0. */
bool ek_mcu_flash_write(uint32_t address, const void *bytes, uint32_t size) {
    volatile uint8_t *to = (volatile uint8_t *)(uintptr_t)address;
    const uint8_t *from = bytes;
    if (address % EK_FLASH_UNIT || size % EK_FLASH_UNIT)
        return false;
    for (uint32_t i = 0; i < size; i++)
        to[i] &= from[i];
    return memcmp((const void *)(uintptr_t)address, bytes, size) == 0;
}
