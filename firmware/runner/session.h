/* One training, evaluation or prediction with the loaded program: a state machine that advances one step a call, so that
 * one thread can serve the link between steps and, through the executor's poll, between the ops of a step. */
#ifndef EK_SESSION_H
#define EK_SESSION_H

#include "cache.h"
#include "checkpoint.h"
#include "kept.h"
#include "spool.h"

/* What `start` asks for. Paths are "" where absent. */
typedef struct {
    uint32_t kind; /* EK_TRAIN_STEP, EK_EVALUATE, EK_PREDICT */
    ek_path program, data, resume, state, checkpoint, out;
    ek_stream stream; /* where it has samples, in the place of `data` */
    ek_cache_request cache;
    uint32_t epochs, seed;
    bool shuffle, reset, profile;
    uint64_t every, steps; /* 0: no checkpoint by steps; no limit */
    uint64_t every_ns;     /* 0: no checkpoint by time */
    uint64_t token;        /* by which the same start is known again; 0: it has none */
    uint64_t until;        /* the last step, counted from the training's begin; 0: as `epochs` and `steps` say */
    ek_kept kept;          /* what is known of the folder that keeps this training */
    const uint8_t *map;    /* a new kept training's request as it came; NULL where it goes on */
    size_t map_bytes;
} ek_session_request;

/* Sums of an evaluation over the samples that count. `weight`: the samples, or the targets that are not ignored. */
typedef struct {
    bool known, has_loss;
    uint32_t id; /* of the session */
    double loss_sum, weight;
    uint64_t correct, counted, samples;
} ek_metrics;

/* How much of a frozen prefix is cached. */
typedef struct {
    uint32_t storage; /* EK_CACHE_OFF: it was not asked for */
    uint32_t rows, samples;
    uint64_t bytes; /* of the file */
    ek_error why;   /* why there is none, or it grows no more; else EK_OK */
} ek_cached;

typedef struct {
    const ek_platform *platform;
    ek_records *records;
    const ek_path *sensors; /* EK_SENSORS paths */

    ek_session_state state;
    bool in_step;        /* an entry is running: the state region is between two steps */
    bool stop_requested; /* takes effect when the step under way is finished */
    ek_error error;      /* why it failed */
    uint32_t id, kind;
    uint64_t token; /* of its start */
    uint64_t step, steps; /* done, planned: both count from the training's begin, also where it was resumed */

    ek_position position; /* of the last training; a checkpoint holds it */
    ek_metrics metrics;   /* of the last evaluation */

    ek_executor *executor;
    const ek_entry *entry, *update;
    ek_dataset data;
    uint32_t samples; /* of the data set */
    ek_spool spool;   /* what is here of a data set that does not fit */
    ek_cache *cache;  /* of a frozen prefix's results, or NULL */
    ek_cached cached; /* of the cache when it was closed */
    uint32_t *order; /* of the epoch under way where it is shuffled, else NULL */
    uint32_t *pick;  /* the batch under way */
    bool shuffle, writes_checkpoint, writes_output;
    ek_path checkpoint;
    uint64_t every, every_ns, saved_ns; /* saved_ns: when the last checkpoint was written */
    ek_kept kept;                       /* kept.id: of the last training, "" if it was not kept */
    uint32_t epochs, batches_per_epoch;
    ek_new_file out;

    ek_op_time *times; /* one an op, of the last profiled session, or NULL */
    uint64_t profiled; /* ops in `times` */
} ek_session;

/* Check everything that can be checked before the first step, then become RUNNING. On failure nothing has changed. */
ek_status ek_session_start(ek_session *session, ek_executor *executor, const ek_session_request *request, ek_started *started,
                           ek_error *error);

/* Run one step. Call while state is EK_RUNNING. Nothing happens while the session waits. */
void ek_session_step(ek_session *session);

/* Whether it runs and can do nothing before a shard comes. */
bool ek_session_waits(const ek_session *session);

/* Of the training that runs or ran last. */
ek_cached ek_session_cached(const ek_session *session);

/* Its state as others see it: EK_WAITING while it waits. */
ek_session_state ek_session_seen(const ek_session *session);

/* Forget everything that belongs to the program about to be replaced. Not while running. */
void ek_session_forget(ek_session *session);

#endif
