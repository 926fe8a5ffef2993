/* SMP group 64 (docs/protocol.md): info, load, start, status, records, stop, save, metrics, profile, sensors; sessions.c has the
 * messages of kept trainings, shards.c those of data that comes piece by piece. */
#ifndef EK_TRAINING_H
#define EK_TRAINING_H

#include "session.h"
#include "smp.h"

enum { EK_TRAINING_GROUP = 64, EK_PROTOCOL = 4 };

/* A Program with the memory that runs it. */
typedef struct {
    ek_file file;
    void *memory;
    ek_executor executor;
} ek_loaded;

typedef struct {
    const ek_platform *platform;
    const ek_backend *backend;
    ek_pool *pool;
    ek_poll *poll; /* serves the link between two ops */
    void *poll_context;
    ek_loaded loaded; /* memory == NULL: no program */
    ek_session session;
    ek_records records;
    ek_path sensors[EK_SENSORS];
    bool ending; /* the process ends when the answers are out: `reset` */
} ek_training;

/* `training` starts zeroed; platform, backend, pool and poll are the caller's to set before this. */
void ek_training_init(ek_training *training);

/* The group's handlers, whose context is an ek_training. */
extern const ek_smp_command ek_training_commands[];

/* Whether a request must wait until the step under way is finished: a checkpoint of half a step would be none. */
bool ek_training_defers(const ek_training *training, const ek_smp_header *request);

bool ek_training_runs(const ek_training *training);

/* Whether it runs and has something to do. */
bool ek_training_steps(const ek_training *training);

/* BUSY, with the session's name, while one runs. */
ek_status ek_training_busy(const ek_training *training, ek_error *error);

/* Load the request's program where it is another one, and start. A program that was loaded stays, also where the start fails. */
ek_status ek_training_start(ek_training *training, const ek_session_request *request, ek_started *started, ek_error *error);

/* The answer to `start` and `resume`. */
void ek_started_write(const ek_started *started, ek_cbor_writer *to);

/* An ek_smp_reset, whose context is an ek_training. */
bool ek_training_end(void *context, bool force);

/* Unload the program. Not while an entry runs. */
void ek_training_close(ek_training *training);

#endif
