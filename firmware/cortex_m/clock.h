/* The monotonic clock: SysTick, whose interrupt also wakes the program now and then. */
#ifndef EK_CLOCK_H
#define EK_CLOCK_H

#include <stdint.h>

void ek_clock_start(void);
uint64_t ek_clock_ns(void);

/* Hundredths of a second since the start, without access to a register. */
uint32_t ek_clock_ticks(void);

#endif
