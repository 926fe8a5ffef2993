/* The board's flash: its places are the linker script's, its driver the port's. */
#ifndef EK_MCU_FLASH_H
#define EK_MCU_FLASH_H

#include "../boot/flash.h"

const ek_flash *ek_mcu_flash(void);

/* The slot that this program was linked for; the bootloader was for none. */
int ek_mcu_flash_running(void);

#endif
