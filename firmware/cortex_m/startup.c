/* From reset to main: FPU, memory, stacks. The program runs on a stack of its own (PSP) at the very beginning of RAM, whose lowest
 * bytes nobody may touch: one that grows too far is a fault, and the handlers (MSP) still have theirs to tell about it. */
#include "core.h"
#include "fault.h"
#include "mcu.h"
#include "stack.h"

extern uint32_t ek_data_load[], ek_data_start[], ek_data_end[], ek_bss_start[], ek_bss_end[];
extern uint32_t ek_stack_start[], ek_stack_end[], ek_handler_stack_end[];

int main(void);
void ek_reset(void);
void ek_systick(void);

enum { PAINT = 0xA5E7C4B3, GUARD_LOG2 = 8, GUARD_WORDS = (1 << GUARD_LOG2) / 4 };

static void paint_stack(void) {
    for (uint32_t *at = ek_stack_start + GUARD_WORDS; at < ek_stack_end; at++)
        *at = PAINT;
}

/* The memory protection unit's region 0, of no rights at all; elsewhere everything stays as it is without the unit. */
static void guard_stack(void) {
    enum { VALID = 1 << 4, NEVER_EXECUTE = 1 << 28, ON = 1, DEFAULT_ELSEWHERE = 1 << 2 };
    MPU_RBAR = (uint32_t)(uintptr_t)ek_stack_start | VALID;
    MPU_RASR = NEVER_EXECUTE | (GUARD_LOG2 - 1) << 1 | ON;
    MPU_CTRL = DEFAULT_ELSEWHERE | ON;
    __asm volatile("dsb\n isb" ::: "memory");
}

uint32_t ek_stack_bytes(void) { return (uint32_t)((ek_stack_end - ek_stack_start - GUARD_WORDS) * 4); }

uint32_t ek_stack_peak(void) {
    const uint32_t *at = ek_stack_start + GUARD_WORDS;
    while (at < ek_stack_end && *at == PAINT)
        at++;
    return (uint32_t)((ek_stack_end - at) * 4);
}

static void set_memory_up(void) {
    const uint32_t *from = ek_data_load;
    for (uint32_t *to = ek_data_start; to < ek_data_end; to++)
        *to = *from++;
    for (uint32_t *to = ek_bss_start; to < ek_bss_end; to++)
        *to = 0;
}

static ek_vector *const core_vectors[16];

__attribute__((noreturn)) void ek_reset(void) {
    SCB_CPACR |= 0xFu << 20; /* the FPU, before anything may use it */
    __asm volatile("dsb\n isb" ::: "memory");
    SCB_VTOR = (uint32_t)(uintptr_t)core_vectors;
    ek_mcu_start();
    set_memory_up();
    paint_stack();
    guard_stack();
    SCB_SHCSR |= 7u << 16; /* memory, bus and usage faults have handlers of their own */
    SCB_CCR |= 1u << 4;    /* division by zero is a fault */
    __asm volatile("msr psp, %0\n"
                   "movs r0, #2\n"
                   "msr control, r0\n"
                   "isb\n"
                   "bl main\n" ::"r"(ek_stack_end)
                   : "r0", "memory");
    ek_system_reset();
}

__attribute__((section(".vectors.core"), used)) static ek_vector *const core_vectors[16] = {
    (ek_vector *)(void *)ek_handler_stack_end, ek_reset,
    ek_fault_nmi, ek_fault_hard, ek_fault_memory, ek_fault_bus, ek_fault_usage,
    [11] = ek_fault_stray, [12] = ek_fault_stray, [14] = ek_fault_stray, [15] = ek_systick,
};
