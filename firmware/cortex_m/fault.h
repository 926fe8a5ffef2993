/* Faults: what happened is written where a reset leaves it, and the board starts again and tells. */
#ifndef EK_FAULT_H
#define EK_FAULT_H

#include <stdbool.h>

/* Why the board started, for people: "power-on", "reset on request", "bus fault at 0x… (pc 0x…)". Call once, at the start. */
const char *ek_fault_reason(void);

/* Reset on request: the next start tells so. */
_Noreturn void ek_fault_reset(void);

/* End with a reason of the program's own, as a fault. */
_Noreturn void ek_fault_panic(const char *why);

/* Exception handlers. */
void ek_fault_nmi(void), ek_fault_hard(void), ek_fault_memory(void), ek_fault_bus(void), ek_fault_usage(void), ek_fault_stray(void);

#endif
