/* Registers of every Cortex-M (ARMv7-M Architecture Reference Manual, B3). */
#ifndef EK_CORE_H
#define EK_CORE_H

#include <stdint.h>

#define EK_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define SYST_CSR EK_REGISTER(0xE000E010)
#define SYST_RVR EK_REGISTER(0xE000E014)
#define SYST_CVR EK_REGISTER(0xE000E018)
#define NVIC_ISER(n) EK_REGISTER(0xE000E100 + 4 * (n))
#define SCB_VTOR EK_REGISTER(0xE000ED08)
#define SCB_AIRCR EK_REGISTER(0xE000ED0C)
#define SCB_CCR EK_REGISTER(0xE000ED14)
#define SCB_SHCSR EK_REGISTER(0xE000ED24)
#define SCB_CFSR EK_REGISTER(0xE000ED28)
#define SCB_HFSR EK_REGISTER(0xE000ED2C)
#define SCB_MMFAR EK_REGISTER(0xE000ED34)
#define SCB_BFAR EK_REGISTER(0xE000ED38)
#define MPU_CTRL EK_REGISTER(0xE000ED94)
#define MPU_RBAR EK_REGISTER(0xE000ED9C)
#define MPU_RASR EK_REGISTER(0xE000EDA0)
#define SCB_CPACR EK_REGISTER(0xE000ED88)

/* Registers that a driver reaches by functions, so that a test can have a model in the place of the hardware; by bytes where a
 * register is the end of a FIFO. `ek_mapped` is where the processor reads what a peripheral maps there. */
#ifdef EK_REGISTER_MODEL
uint32_t ek_register_read(uint32_t address);
void ek_register_write(uint32_t address, uint32_t value);
uint8_t ek_register_read_byte(uint32_t address);
void ek_register_write_byte(uint32_t address, uint8_t value);
const uint8_t *ek_mapped(uint32_t address);
static inline void ek_barrier(void) {}
#else
static inline uint32_t ek_register_read(uint32_t address) { return EK_REGISTER(address); }
static inline void ek_register_write(uint32_t address, uint32_t value) { EK_REGISTER(address) = value; }
static inline uint8_t ek_register_read_byte(uint32_t address) { return *(volatile uint8_t *)(uintptr_t)address; }
static inline void ek_register_write_byte(uint32_t address, uint8_t value) { *(volatile uint8_t *)(uintptr_t)address = value; }
static inline const uint8_t *ek_mapped(uint32_t address) { return (const uint8_t *)(uintptr_t)address; }
static inline void ek_barrier(void) { __asm volatile("dsb\n isb" ::: "memory"); }
#endif

/* What a Cortex-M7's data cache has of a place is what was there before: drop it (SCB_DCIMVAC). */
static inline void ek_cache_forget(uint32_t address, uint32_t bytes) {
    enum { LINE = 32 };
    for (uint32_t at = address; at < address + bytes; at += LINE)
        ek_register_write(0xE000EF5C, at);
    ek_barrier();
}

static inline void ek_interrupt_enable(unsigned number) { NVIC_ISER(number / 32) = 1u << number % 32; }

static inline void ek_wait_for_interrupt(void) { __asm volatile("wfi" ::: "memory"); }

static inline uint32_t ek_interrupts_off(void) {
    uint32_t before;
    __asm volatile("mrs %0, primask\n cpsid i" : "=r"(before)::"memory");
    return before;
}

static inline void ek_interrupts_restore(uint32_t before) { __asm volatile("msr primask, %0" ::"r"(before) : "memory"); }

_Noreturn static inline void ek_system_reset(void) {
    __asm volatile("dsb" ::: "memory");
    SCB_AIRCR = 0x05FA0004;
    for (;;)
        __asm volatile("dsb");
}

#endif
