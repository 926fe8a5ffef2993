/* The board's own limits: the message `limits`. */
#ifndef EK_RUNNER_LIMITS_H
#define EK_RUNNER_LIMITS_H

#include "training.h"

/* An ek_smp handler, whose context is an ek_training. */
ek_status ek_limits_measure(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error);

#endif
