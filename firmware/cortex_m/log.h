/* Lines for people; they go out between SMP frames. What does not fit is lost, from the end. */
#ifndef EK_MCU_LOG_H
#define EK_MCU_LOG_H

#include "../serial/ring.h"

extern ek_ring ek_log_ring;

void ek_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
