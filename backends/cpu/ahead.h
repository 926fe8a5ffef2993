/* Asking for memory before it is read. A kernel that goes through a few lines of many rows at a time leaves the processor's own
 * prefetcher, which follows one direction at a time, nothing to follow: from DRAM that ran at a quarter of the bandwidth
 * (96 channels, Zen 4). So rows that come next are asked for in the order of their addresses, a little with each step of
 * the work on the rows before them, into the second-level cache. */
#ifndef EK_AHEAD_H
#define EK_AHEAD_H

#include <stddef.h>

enum { EK_LINE = 16 }; /* floats of a cache line */

/* Whether there is a second level to ask into. */
#if defined(EK_M7)
enum { EK_ASKS = 0 };
#else
enum { EK_ASKS = 1 };
#endif

/* Into the second-level cache: on Zen 4, asking for the first level ran no faster than not asking. */
static inline void ek_ahead_line(const float *at) { __builtin_prefetch(at, 0, 2); }

typedef struct {
    const float *at, *end;
    ptrdiff_t part; /* floats to ask for at a time */
} ek_ahead;

/* `floats` from `from` on, in `steps` steps. The addresses need not exist; with no floats `from` may be NULL. */
static inline ek_ahead ek_ahead_of(const float *from, size_t floats, size_t steps) {
    size_t lines = (floats + EK_LINE - 1) / EK_LINE;
    ptrdiff_t part = steps ? (ptrdiff_t)((lines + steps - 1) / steps * EK_LINE) : 0;
    return (ek_ahead){from, floats ? from + floats : from, part};
}

/* One step. A call, since it stands in loops of which there are dozens of instances. */
__attribute__((noinline, unused)) static void ek_ahead_step(ek_ahead *a) {
    if (a->at == a->end) return;
    const float *stop = a->end - a->at > a->part ? a->at + a->part : a->end;
    for (; a->at < stop; a->at += EK_LINE) ek_ahead_line(a->at);
    a->at = stop;
}

#endif
