#include "clock.h"

#include "core.h"
#include "mcu.h"

enum { TICKS_PER_SECOND = 100 };

static volatile uint32_t ticks, overflows; /* 2^32 ticks are more than a year */

void ek_systick(void);

void ek_systick(void) {
    if (++ticks == 0)
        overflows++;
}

static uint32_t period(void) { return ek_mcu_clock_hz / TICKS_PER_SECOND; }

void ek_clock_start(void) {
    SYST_RVR = period() - 1;
    SYST_CVR = 0;
    SYST_CSR = 7; /* the processor's clock, with an interrupt */
}

uint32_t ek_clock_ticks(void) { return ticks; }

uint64_t ek_clock_ns(void) {
    uint32_t high, low, left;
    do { /* once more where a tick came in between */
        high = overflows;
        low = ticks;
        left = SYST_CVR;
    } while (low != ticks || high != overflows);
    uint64_t whole = (uint64_t)high << 32 | low;
    uint64_t cycles = period() - 1 - left;
    return whole * (1000000000u / TICKS_PER_SECOND) + cycles * 1000000000u / ek_mcu_clock_hz;
}
