/* The request `start` (docs/protocol.md). */
#ifndef EK_START_H
#define EK_START_H

#include "session.h"

/* Everything but kept.platform, kept.before and kept.count, map and map_bytes. BAD_REQUEST. */
ek_status ek_start_read(const ek_cbor *map, ek_session_request *request, ek_error *error);

#endif
