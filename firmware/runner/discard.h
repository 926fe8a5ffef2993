/* What of the home folder may go: the message `discard` (docs/session-host.md). Between two messages nothing else starts or removes
 * anything here, so that what is checked still holds when it is removed. */
#ifndef EK_DISCARD_H
#define EK_DISCARD_H

#include "training.h"

/* Called with a path that a session needs. */
typedef void ek_need(void *context, const char *path);

/* What a kept session needs: of one that is done its program, without which it cannot be fetched; else all that it was asked with,
 * so that it can begin again. Of a damaged one, which cannot, nothing. */
void ek_session_needs(const ek_platform *platform, const ek_session_id *id, ek_need *need, void *context);

ek_smp_handler ek_discard;

#endif
