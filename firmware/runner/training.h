/* SMP group 64 (docs/protocol.md): load, start, status, records, stop, save, metrics, profile, sensors, info. */
#ifndef EK_TRAINING_H
#define EK_TRAINING_H

#include "session.h"
#include "smp.h"

enum { EK_TRAINING_GROUP = 64, EK_PROTOCOL = 1 };

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
} ek_training;

/* `training` starts zeroed; platform, backend, pool and poll are the caller's to set before this. */
void ek_training_init(ek_training *training);

/* The group's handlers, whose context is an ek_training. */
extern const ek_smp_command ek_training_commands[];

/* Whether a request must wait until the step under way is finished: a checkpoint of half a step would be none. */
bool ek_training_defers(const ek_training *training, const ek_smp_header *request);

/* Unload the program. Not while an entry runs. */
void ek_training_close(ek_training *training);

#endif
