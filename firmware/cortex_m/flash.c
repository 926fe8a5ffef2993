#include "flash.h"

#include "mcu.h"

extern const uint8_t ek_log0_start[], ek_log0_end[], ek_log1_start[], ek_log1_end[];
extern const uint8_t ek_slot0_start[], ek_slot0_end[], ek_slot1_start[], ek_slot1_end[], ek_running_slot[];
extern const uint8_t ek_program0_start[], ek_program0_end[], ek_program1_start[], ek_program1_end[];

static uint32_t address(const uint8_t *place) { return (uint32_t)(uintptr_t)place; }

static ek_area area(const uint8_t *start, const uint8_t *end) { return (ek_area){address(start), address(end) - address(start)}; }

/* Programs may have a chip of their own. Of no bytes where it does not answer. */
static ek_area program_area(const uint8_t *start, const uint8_t *end) {
    return ek_mcu_flash_sector(address(start)).bytes ? area(start, end) : area(start, start);
}

const ek_flash *ek_mcu_flash(void) {
    static ek_flash flash;
    flash = (ek_flash){
        .memory = ek_log0_start,
        .address = address(ek_log0_start),
        .log = {area(ek_log0_start, ek_log0_end), area(ek_log1_start, ek_log1_end)},
        .slot = {area(ek_slot0_start, ek_slot0_end), area(ek_slot1_start, ek_slot1_end)},
        .program = {program_area(ek_program0_start, ek_program0_end), program_area(ek_program1_start, ek_program1_end)},
        .sector = ek_mcu_flash_sector,
        .erase = ek_mcu_flash_erase,
        .write = ek_mcu_flash_write,
    };
    return &flash;
}

int ek_mcu_flash_running(void) { return (int)address(ek_running_slot); }
