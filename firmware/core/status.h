/* One error type for the whole runner. The numbers travel in SMP responses: generated from edgekit/protocol/status.py. */
#ifndef EK_STATUS_H
#define EK_STATUS_H

#include "status_gen.h"

/* A status with one line for people: what happened and where. */
typedef struct {
    ek_status status;
    char text[248];
} ek_error;

/* Fill `error` (printf-like) and return `status`. */
ek_status ek_fail(ek_error *error, ek_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
