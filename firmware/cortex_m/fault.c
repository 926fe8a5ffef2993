#include "fault.h"

#include <stdio.h>
#include <string.h>

#include "../runner/crc32.h"
#include "core.h"
#include "mcu.h"

enum { NMI_EXCEPTION = 2, HARD = 3, MEMORY = 4, BUS = 5, USAGE = 6 };

/* What a reset leaves: the section is neither loaded nor zeroed, and the CRC tells whether it holds anything. */
typedef struct {
    uint32_t requested, exception, pc, lr, cfsr, hfsr, address;
    char why[64]; /* of a panic; "" */
    uint32_t crc;
} record;

__attribute__((section(".noinit"))) static record kept;

static uint32_t crc_of(const record *r) { return ek_crc32(r, offsetof(record, crc)) ^ 0x454B4646; }

_Noreturn static void keep(const record *r) {
    kept = *r;
    kept.crc = crc_of(&kept);
    ek_system_reset();
}

_Noreturn void ek_fault_reset(void) { keep(&(record){.requested = 1}); }

_Noreturn void ek_fault_panic(const char *why) {
    record r = {.exception = 0, .pc = (uint32_t)(uintptr_t)__builtin_return_address(0)};
    strncpy(r.why, why, sizeof r.why - 1);
    keep(&r);
}

/* `frame` is what the processor pushed: r0-r3, r12, lr, pc, psr; not to be trusted where pushing it was the fault. */
__attribute__((used)) static void note_fault(const uint32_t *frame, uint32_t exception) {
    enum { STACKING = 1u << 4 | 1u << 12, MEMORY_ADDRESS = 1u << 7, BUS_ADDRESS = 1u << 15 };
    record r = {.exception = exception, .cfsr = SCB_CFSR, .hfsr = SCB_HFSR};
    if (!(r.cfsr & STACKING)) {
        r.lr = frame[5];
        r.pc = frame[6];
    }
    r.address = r.cfsr & MEMORY_ADDRESS ? SCB_MMFAR : r.cfsr & BUS_ADDRESS ? SCB_BFAR : 0;
    keep(&r);
}

/* The frame lies on the stack of what was interrupted: bit 2 of the exception's return address tells which. */
#define HANDLER(name) \
    __attribute__((naked)) void name(void) { \
        __asm volatile("tst lr, #4\n" \
                       "ite eq\n" \
                       "mrseq r0, msp\n" \
                       "mrsne r0, psp\n" \
                       "mrs r1, ipsr\n" \
                       "b note_fault\n"); \
    }

HANDLER(ek_fault_nmi)
HANDLER(ek_fault_hard)
HANDLER(ek_fault_memory)
HANDLER(ek_fault_bus)
HANDLER(ek_fault_usage)
HANDLER(ek_fault_stray)

static const char *kind_of(const record *r) {
    enum { STACKING = 1u << 4 | 1u << 12, NO_DIVISOR = 1u << 25, UNDEFINED = 1u << 16 };
    if (r->cfsr & STACKING)
        return "stack overflow";
    if (r->cfsr & NO_DIVISOR)
        return "division by zero";
    if (r->cfsr & UNDEFINED)
        return "undefined instruction";
    switch (r->exception) {
    case NMI_EXCEPTION:
        return "watchdog";
    case HARD:
        return "hard fault";
    case MEMORY:
        return "memory fault";
    case BUS:
        return "bus fault";
    case USAGE:
        return "usage fault";
    default:
        return "stray exception";
    }
}

const char *ek_fault_reason(void) {
    static char text[128];
    record r = kept;
    memset(&kept, 0, sizeof kept);
    r.why[sizeof r.why - 1] = 0;
    bool watchdog = ek_mcu_watchdog_bit();
    if (r.crc != crc_of(&r))
        return watchdog ? "watchdog" : "power-on";
    if (r.requested)
        return "reset on request";
    if (r.why[0])
        snprintf(text, sizeof text, "%s (pc 0x%08lx)", r.why, (unsigned long)r.pc);
    else if (r.address)
        snprintf(text, sizeof text, "%s at 0x%08lx (pc 0x%08lx, lr 0x%08lx, cfsr 0x%08lx)", kind_of(&r), (unsigned long)r.address,
                 (unsigned long)r.pc, (unsigned long)r.lr, (unsigned long)r.cfsr);
    else
        snprintf(text, sizeof text, "%s (pc 0x%08lx, lr 0x%08lx, cfsr 0x%08lx)", kind_of(&r), (unsigned long)r.pc,
                 (unsigned long)r.lr, (unsigned long)r.cfsr);
    return text;
}
