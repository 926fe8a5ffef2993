/* Flash memory as slots of firmware and of programs need it, as one table: a port's driver below, or a simulator that cuts the power. */
#ifndef EK_FLASH_H
#define EK_FLASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that are written at once, at a multiple of as many: no flash of a Cortex-M asks for more. */
enum { EK_FLASH_UNIT = 32, EK_SLOTS = 2, EK_LOGS = 2, EK_PROGRAMS = 2 };

/* Whole sectors, by the address at which the processor has them. */
typedef struct {
    uint32_t at, bytes;
} ek_area;

typedef struct {
    const uint8_t *memory; /* where `address` is read; on a microcontroller the same */
    uint32_t address;
    ek_area log[EK_LOGS], slot[EK_SLOTS];
    ek_area program[EK_PROGRAMS]; /* of no bytes where the flash has no room for them */
    ek_area (*sector)(uint32_t at);                               /* the one that has that address */
    bool (*erase)(uint32_t at, uint32_t bytes);                   /* whole sectors: every byte becomes FF. False: it failed */
    bool (*write)(uint32_t at, const void *bytes, uint32_t size); /* whole units, which are erased. False: it failed */
} ek_flash;

static inline const uint8_t *ek_flash_at(const ek_flash *flash, uint32_t address) {
    return flash->memory + (address - flash->address);
}

#endif
