/* The messages of trainings that are kept (docs/session-host.md): start with "session", records of a session, sessions, resume, remove. */
#ifndef EK_SESSIONS_H
#define EK_SESSIONS_H

#include "training.h"

/* `request` is the start's whole map, r what was read from it. The same request once more is answered as the first time. */
ek_status ek_sessions_start(ek_training *training, const ek_cbor *request, ek_session_request *r, ek_started *started,
                            ek_error *error);

/* The answer to `records` with "session". */
ek_status ek_sessions_records(const ek_training *training, const ek_session_id *id, uint64_t since, uint64_t max,
                              ek_cbor_writer *to, ek_error *error);

/* BAD_REQUEST where the runner keeps nothing. */
ek_status ek_sessions_need_home(const ek_training *training, ek_error *error);

/* Remove a session that does not run. */
ek_status ek_sessions_forget(ek_training *training, const ek_session_id *id, ek_error *error);

ek_smp_handler ek_sessions_list, ek_sessions_resume, ek_sessions_remove, ek_sessions_fetched;

#endif
