/* How much of the program's stack was ever in use: it is painted at the start. */
#ifndef EK_STACK_H
#define EK_STACK_H

#include <stdint.h>

uint32_t ek_stack_bytes(void);
uint32_t ek_stack_peak(void);

#endif
