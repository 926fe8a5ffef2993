/* From reset to the image that ek_slots_choose names. No interrupt is ever enabled here, and clocks and caches stay as reset leaves
 * them, so the image starts as from a reset; only the watchdog runs, which starts the board again where a trial hangs. */
#include "../boot/slots.h"
#include "../cortex_m/core.h"
#include "../cortex_m/flash.h"
#include "../cortex_m/mcu.h"

enum { WATCHDOG_MS = 20000, BAUD = 115200 };

extern uint32_t ek_data_load[], ek_data_start[], ek_data_end[], ek_bss_start[], ek_bss_end[], ek_stack_end[];

void ek_reset(void);

static void set_memory_up(void) {
    const uint32_t *from = ek_data_load;
    for (uint32_t *to = ek_data_start; to < ek_data_end; to++)
        *to = *from++;
    for (uint32_t *to = ek_bss_start; to < ek_bss_end; to++)
        *to = 0;
}

/* An image begins with its stack's end and its first instruction. */
_Noreturn static void start(const uint32_t *vectors) {
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
    __asm volatile("dsb\n isb\n msr msp, %0\n bx %1" ::"r"(vectors[0]), "r"(vectors[1]) : "memory");
    __builtin_unreachable();
}

/* Nothing can be started: say so on the line, for whoever looks, until somebody programs the board anew. */
_Noreturn static void give_up(void) {
    static const char said[] = "edgekit bootloader: neither slot holds a firmware image that is whole and signed with this board's key\r\n";
    ek_mcu_start();
    ek_mcu_uart_open(BAUD);
    for (;;) {
        for (const char *c = said; *c; c++)
            ek_ring_put(&ek_mcu_line.out, (uint8_t)*c);
        ek_mcu_line.send();
        for (uint32_t i = 0; i < ek_mcu_clock_hz; i++)
            __asm volatile("nop");
    }
}

__attribute__((noreturn)) void ek_reset(void) {
    SCB_CPACR |= 0xFu << 20; /* the FPU, which memory functions may use */
    __asm volatile("dsb\n isb" ::: "memory");
    set_memory_up();
    const ek_flash *flash = ek_mcu_flash();
    int slot = ek_slots_choose(flash, ek_image_key);
    ek_image image;
    if (slot == EK_NO_SLOT || ek_image_open(flash, slot, &image) != EK_IMAGE_WHOLE)
        give_up();
    ek_mcu_watchdog_start(WATCHDOG_MS);
    start((const uint32_t *)(const void *)ek_flash_at(flash, flash->slot[slot].at + image.vectors));
}

static void stop(void) { ek_system_reset(); } /* a fault: once more */

__attribute__((section(".vectors.core"), used)) static ek_vector *const vectors[16] = {
    (ek_vector *)(void *)ek_stack_end, ek_reset, stop, stop, stop, stop, stop, [11] = stop, [12] = stop, [14] = stop, [15] = stop,
};
