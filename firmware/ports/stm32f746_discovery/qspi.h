/* The flash behind the QUADSPI: 16 MB in sectors of 64 KB, read at 0x90000000 and above. */
#ifndef EK_QSPI_H
#define EK_QSPI_H

#include "../../boot/flash.h"

/* Pins, peripheral and chip, up to reading in place. No static variables. Where another chip answers, or none, there are no sectors. */
void ek_qspi_start(void);

/* Whether an address is one of that flash. */
bool ek_qspi_has(uint32_t address);

/* As of every flash (cortex_m/mcu.h). `bytes` must lie elsewhere: while one part is written, none can be read. */
ek_area ek_qspi_sector(uint32_t address);
bool ek_qspi_erase(uint32_t address, uint32_t bytes);
bool ek_qspi_write(uint32_t address, const void *bytes, uint32_t size);

#endif
