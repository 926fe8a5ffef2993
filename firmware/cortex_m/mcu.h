/* What a port gives: one folder below firmware/ports/ defines all of this, and the linker script (docs/porting.md). */
#ifndef EK_MCU_H
#define EK_MCU_H

#include <stdbool.h>
#include <stdint.h>

#include "../boot/flash.h"
#include "../serial/serial.h"

extern const char ek_mcu_name[];       /* "mps2-an500": as the board's profile is called, for people */
extern const uint32_t ek_mcu_clock_hz; /* of the processor, which SysTick counts */

/* Called first, before memory is set up: clocks, pins, flash wait states. May not use static variables. */
void ek_mcu_start(void);

/* The line. The UART's interrupt handlers move bytes between it and the wire. */
extern ek_line ek_mcu_line;
void ek_mcu_uart_open(uint32_t baud);

/* A watchdog that resets the board when it is not fed for `ms`; where it can, it first raises NMI. */
void ek_mcu_watchdog_start(uint32_t ms);
void ek_mcu_watchdog_feed(void);

/* Whether it was the watchdog that started the board, where it raises no NMI. Asked once, at the start. */
bool ek_mcu_watchdog_bit(void);

/* The flash, by the addresses that the processor reads (boot/flash.h). Erasing takes whole sectors; `sector` is the one that has an
 * address, of no bytes where no flash answers there. Both others say whether it worked, and what was read before is not what a cache gives afterwards. */
ek_area ek_mcu_flash_sector(uint32_t address);
bool ek_mcu_flash_erase(uint32_t address, uint32_t bytes);
bool ek_mcu_flash_write(uint32_t address, const void *bytes, uint32_t size);

/* Interrupt handlers of the device, behind the core's 16: a port's table in the section .vectors.device. */
typedef void ek_vector(void);

#endif
