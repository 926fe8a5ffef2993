/* Signals: SIGTERM and SIGHUP ask the process to end, and wake who waits. */
#ifndef EK_SIGNALS_H
#define EK_SIGNALS_H

#include <stdbool.h>

/* Before the pool's threads exist, so that they inherit the mask: SIGTERM and SIGHUP are blocked. */
void ek_signals_set(void);

/* Deliver them from now on; each writes a byte to the pipe whose end for reading is returned (-1: errno says why). */
int ek_signals_wake(void);

bool ek_asked_to_end(void);

#endif
