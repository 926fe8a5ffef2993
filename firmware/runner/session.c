#include "session.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static uint32_t accumulate_of(const ek_session *s) {
    uint32_t n = s->executor->program.header->accumulate;
    return n ? n : 1;
}

/* The entry that runs in a step: of a training whose prefix is cached the rest of it. */
static const ek_entry *step_entry(const ek_session *s) { return s->cache ? s->cache->suffix : s->entry; }

static void *port_data(const ek_session *s, uint32_t role, uint32_t index) {
    const ek_port *port = ek_entry_port(&s->executor->program, step_entry(s), role, index);
    return port ? ek_executor_data(s->executor, port->tensor) : NULL;
}

static const ek_tensor *port_tensor(const ek_session *s, uint32_t role, uint32_t index) {
    const ek_port *port = ek_entry_port(&s->executor->program, s->entry, role, index);
    return port ? &s->executor->program.tensors[port->tensor] : NULL;
}

ek_cached ek_session_cached(const ek_session *s) {
    const ek_cache *c = s->cache;
    if (!c)
        return s->cached;
    return (ek_cached){.storage = c->storage, .rows = c->known, .samples = c->samples, .bytes = c->file.bytes, .why = c->why};
}

/* ---- the end of a session ---- */

static void release(ek_session *s) {
    ek_dataset_close(&s->data);
    ek_spool_close(&s->spool);
    s->platform->release(s->order);
    s->platform->release(s->pick);
    s->order = s->pick = NULL;
    if (s->writes_output)
        s->platform->abandon(&s->out);
    s->writes_output = false;
    s->executor->times = NULL;
    if (s->cache) /* what a kept session can go on with stays */
        s->cached = ek_session_cached(s);
    ek_cache_close(s->cache, s->state == EK_DONE || !s->kept.id.text[0]);
    s->cache = NULL;
}

static void fail(ek_session *s) {
    ek_error unused;
    s->state = EK_FAILED;
    release(s);
    (void)ek_kept_end(&s->kept, &(ek_kept_result){EK_FAILED, s->step, s->steps, s->error}, &unused); /* s->error says more */
}

/* Never ahead of the records: what a checkpoint's training did is on the disk when the checkpoint is. */
static bool save_checkpoint(ek_session *s) {
    uint64_t bytes;
    bool saved = ek_kept_sync(&s->kept, &s->error) == EK_OK &&
                 ek_checkpoint_save(s->platform, s->checkpoint.text, s->executor, &s->position, &bytes, &s->error) == EK_OK;
    s->saved_ns = s->platform->clock();
    return saved;
}

static bool checkpoint_due(const ek_session *s) {
    return s->writes_checkpoint && ((s->every && s->step % s->every == 0) ||
                                    (s->every_ns && s->platform->clock() - s->saved_ns >= s->every_ns));
}

static void finish(ek_session *s, ek_session_state state) {
    if (s->writes_checkpoint && !save_checkpoint(s)) {
        fail(s);
        return;
    }
    if (s->writes_output && state == EK_DONE) {
        s->writes_output = false;
        if (s->platform->commit(&s->out, &s->error) != EK_OK) {
            fail(s);
            return;
        }
    }
    if (ek_kept_end(&s->kept, &(ek_kept_result){state, s->step, s->steps, {EK_OK, ""}}, &s->error) != EK_OK) {
        fail(s);
        return;
    }
    s->state = state;
    release(s);
}

static void run_entry(ek_session *s, const ek_entry *entry) {
    s->in_step = true;
    ek_executor_run(s->executor, entry);
    s->in_step = false;
}

/* ---- training ---- */

/* The batch number `batch` of the epoch, in its order. Shards have the samples in their order already. */
static void pick_batch(const ek_session *s, uint32_t batch) {
    uint64_t done = s->position.step * accumulate_of(s) + (batch - s->position.batches); /* counted from the training's begin */
    for (uint32_t i = 0; i < s->data.batch; i++) {
        uint32_t at = batch * s->data.batch + i;
        if (ek_spool_used(&s->spool))
            s->pick[i] = (uint32_t)ek_spool_row(&s->spool, done * s->data.batch + i);
        else
            s->pick[i] = s->order ? s->order[at] : at;
    }
}

static bool load_batch(ek_session *s, uint32_t batch) {
    pick_batch(s, batch);
    if (s->cache)
        return ek_cache_load(s->cache, s->pick, &s->error) == EK_OK;
    return ek_dataset_fill(&s->data, s->executor, s->pick, &s->error) == EK_OK;
}

/* Seed and runs done, for what is drawn at random: each micro-batch has its own dropout mask. */
static void set_step_port(const ek_session *s, const ek_entry *entry, uint32_t micro) {
    const ek_port *found = ek_entry_port(&s->executor->program, entry, EK_PORT_STEP, 0);
    if (found) {
        int32_t *port = ek_executor_data(s->executor, found->tensor);
        port[0] = (int32_t)(uint32_t)s->position.seed;
        port[1] = (int32_t)(uint32_t)(s->position.step * accumulate_of(s) + micro);
    }
}

static void begin_epoch(ek_session *s) {
    if (s->order)
        ek_shuffle(s->order, s->samples, (uint32_t)s->position.seed, s->position.epoch);
}

static void advance_position(ek_session *s) {
    s->position.step++;
    s->position.batches += accumulate_of(s);
    if (s->position.batches == s->batches_per_epoch) {
        s->position.batches = 0;
        s->position.epoch++;
        if (s->position.epoch < s->epochs)
            begin_epoch(s);
    }
    s->step = s->position.step;
}

static bool check_batch(ek_session *s, uint32_t batch) {
    if (!s->cache)
        return load_batch(s, batch);
    pick_batch(s, batch);
    return ek_cache_check(s->cache, s->pick, &s->error) == EK_OK;
}

/* The batch that was loaded. */
static bool run_batch(ek_session *s, uint32_t micro, ek_record *record) {
    if (s->cache) {
        if (!s->cache->whole)
            run_entry(s, s->cache->prefix);
        uint64_t load = s->platform->clock();
        if (ek_cache_fill(s->cache, s->pick, &s->error) != EK_OK)
            return false;
        record->load_ns += s->platform->clock() - load;
    }
    set_step_port(s, step_entry(s), micro);
    run_entry(s, step_entry(s));
    return true;
}

/* All micro-batches and the update. False: failed before any of it ran. `record` gets loss and times. */
static bool run_update(ek_session *s, ek_record *record) {
    uint64_t (*clock)(void) = s->platform->clock;
    uint32_t accumulate = accumulate_of(s);
    uint64_t begin = clock();
    /* A bad sample must not leave half an accumulation behind: look at all of them first. */
    for (uint32_t m = 0; accumulate > 1 && m < accumulate; m++)
        if (!check_batch(s, s->position.batches + m))
            return false;
    record->load_ns = clock() - begin;

    double loss = 0;
    s->executor->update_ns = 0;
    for (uint32_t m = 0; m < accumulate; m++) {
        uint64_t load = clock();
        if (!load_batch(s, s->position.batches + m))
            return false;
        record->load_ns += clock() - load;
        if (!run_batch(s, m, record))
            return false;
        loss += *(const float *)port_data(s, EK_PORT_LOSS, 0);
    }
    record->loss = (float)(loss / accumulate);
    record->update_ns = s->executor->update_ns;
    if (s->update) {
        uint64_t update = clock();
        set_step_port(s, s->update, 0);
        run_entry(s, s->update);
        record->update_ns = clock() - update;
    }
    record->time_ns = clock();
    record->step_ns = record->time_ns - begin;
    record->compute_ns = record->step_ns - record->load_ns - record->update_ns;
    return true;
}

static void step_train(ek_session *s) {
    ek_record record = {.step = s->position.step + 1, .epoch = s->position.epoch};
    if (!run_update(s, &record)) {
        fail(s);
        return;
    }
    advance_position(s);
    s->platform->read_sensors(s->sensors, &record.readings);
    ek_records_add(s->records, &record);
    if (ek_kept_add(&s->kept, &record, &s->error) != EK_OK) {
        fail(s);
        return;
    }
    if (!isfinite(record.loss)) {
        ek_fail(&s->error, EK_DIVERGED, "the loss became %s at step %" PRIu64 "; lower the learning rate, then train again "
                "from a fresh state or a checkpoint", isnan(record.loss) ? "NaN" : "infinite", s->step);
        fail(s);
        return;
    }
    if (s->step == s->steps)
        finish(s, EK_DONE);
    else if ((checkpoint_due(s) && !save_checkpoint(s)) || ek_spool_release(&s->spool, s->step, &s->error) != EK_OK)
        fail(s);
}

/* ---- evaluation and prediction: every sample once, the last batch filled up with copies of its first sample ---- */

/* Load batch `s->step`; *real is the number of samples that count, the first ones. */
static bool load_once(ek_session *s, uint32_t *real) {
    uint32_t first = (uint32_t)s->step * s->data.batch, left = s->samples - first;
    *real = left < s->data.batch ? left : s->data.batch;
    first = (uint32_t)ek_spool_row(&s->spool, first);
    for (uint32_t i = 0; i < s->data.batch; i++)
        s->pick[i] = i < *real ? first + i : first;
    return ek_dataset_fill(&s->data, s->executor, s->pick, &s->error) == EK_OK;
}

/* One run of `evaluate`: its loss, and the weight of the whole batch, fill included. */
typedef struct {
    double loss, weight;
} run_result;

/* Targets of the samples [first, last) that count (1 hit, 0 miss, 2 ignored); without a `correct` port each sample is one. */
static double counted(const ek_session *s, uint32_t first, uint32_t last, uint64_t *hits) {
    const ek_tensor *tensor = port_tensor(s, EK_PORT_CORRECT, 0);
    if (!tensor)
        return last - first;
    const uint8_t *correct = port_data(s, EK_PORT_CORRECT, 0);
    uint64_t each = tensor->bytes / s->data.batch, count = 0;
    for (uint64_t i = first * each; i < last * each; i++) {
        count += correct[i] != 2;
        *hits += correct[i] == 1;
    }
    return (double)count;
}

static run_result run_evaluate(ek_session *s) {
    uint64_t hits = 0;
    run_entry(s, s->entry);
    const float *loss = port_data(s, EK_PORT_LOSS, 0);
    return (run_result){loss ? *loss : 0, counted(s, 0, s->data.batch, &hits)};
}

/* The sum that the loss is the mean of. A mean over nothing is NaN and weighs nothing. */
static double weighted(const run_result *r) { return r->weight > 0 ? r->loss * r->weight : 0; }

static void step_evaluate(ek_session *s) {
    uint32_t real;
    if (!load_once(s, &real)) {
        fail(s);
        return;
    }
    run_result mixed = run_evaluate(s);
    uint64_t hits = 0;
    double weight = counted(s, 0, real, &hits);
    s->metrics.correct += hits;
    s->metrics.counted += port_data(s, EK_PORT_CORRECT, 0) ? (uint64_t)weight : 0;
    s->metrics.samples += real;
    s->metrics.weight += weight;
    s->metrics.loss_sum += weighted(&mixed);
    if (real < s->data.batch) {
        uint32_t batch = s->data.batch;
        for (uint32_t i = 0; i < batch; i++)
            s->pick[i] = s->pick[0];
        if (ek_dataset_fill(&s->data, s->executor, s->pick, &s->error) != EK_OK) {
            fail(s);
            return;
        }
        run_result one = run_evaluate(s);
        s->metrics.loss_sum -= weighted(&one) * (batch - real) / batch;
    }
}

static void step_predict(ek_session *s) {
    uint32_t real;
    if (!load_once(s, &real)) {
        fail(s);
        return;
    }
    run_entry(s, s->entry);
    const ek_tensor *tensor = port_tensor(s, EK_PORT_OUTPUT, 0);
    size_t bytes = tensor->bytes / s->data.batch * real;
    if (s->platform->write(&s->out, port_data(s, EK_PORT_OUTPUT, 0), bytes, &s->error) != EK_OK)
        fail(s);
}

static void step_once(ek_session *s) {
    if (s->kind == EK_EVALUATE)
        step_evaluate(s);
    else
        step_predict(s);
    if (s->state != EK_RUNNING)
        return;
    s->step++;
    if (s->step == s->steps) {
        s->metrics.known |= s->kind == EK_EVALUATE;
        finish(s, EK_DONE);
    } else if (ek_spool_release(&s->spool, s->step, &s->error) != EK_OK) {
        fail(s);
    }
}

bool ek_session_waits(const ek_session *s) {
    return s->state == EK_RUNNING && !s->stop_requested && s->step < s->steps && !ek_spool_ready(&s->spool);
}

ek_session_state ek_session_seen(const ek_session *s) { return ek_session_waits(s) ? EK_WAITING : s->state; }

void ek_session_step(ek_session *s) {
    if (ek_session_waits(s))
        return;
    if (s->step == s->steps) /* resumed where nothing was left to do */
        finish(s, EK_DONE);
    else if (s->stop_requested)
        finish(s, EK_STOPPED);
    else if (ek_spool_show(&s->spool, &s->data, &s->error) != EK_OK)
        fail(s);
    else if (s->kind == EK_TRAIN_STEP)
        step_train(s);
    else
        step_once(s);
}

/* ---- the start: everything is checked and opened into `next`, which replaces the session when nothing can fail ---- */

static ek_status check_entry(const ek_session *s, ek_error *error) {
    static const char *const names[] = {"", "train_step", "update", "evaluate", "predict"};
    if (!s->entry)
        return ek_fail(error, EK_BAD_REQUEST, "the program has no entry %s", names[s->kind]);
    if (s->kind == EK_TRAIN_STEP) {
        if (!port_data(s, EK_PORT_LOSS, 0) || (accumulate_of(s) > 1) != (s->update != NULL))
            return ek_fail(error, EK_BAD_PROGRAM, "train_step lacks its loss, or `update` and accumulate do not fit");
    }
    const ek_tensor *output = port_tensor(s, EK_PORT_OUTPUT, 0);
    if (s->kind == EK_PREDICT && (!output || output->dtype == EK_BITS))
        return ek_fail(error, EK_BAD_PROGRAM, "predict has no output 0, or one of bits");
    return EK_OK;
}

static ek_status plan(ek_session *s, const ek_session_request *request, uint32_t *dropped, ek_error *error) {
    uint32_t batch = s->data.batch, samples = s->samples;
    if (s->kind != EK_TRAIN_STEP) {
        *dropped = 0;
        s->step = 0;
        s->steps = ((uint64_t)samples + batch - 1) / batch;
        if (s->kind == EK_EVALUATE && request->steps && request->steps < s->steps)
            s->steps = request->steps;
        if (samples == 0)
            return ek_fail(error, EK_EMPTY_DATA, "the data set has no samples");
        return EK_OK;
    }
    uint64_t whole = (uint64_t)batch * accumulate_of(s); /* samples of one update */
    if (samples < whole)
        return ek_fail(error, EK_EMPTY_DATA, "the data set has %" PRIu32 " samples, one step takes %" PRIu64, samples, whole);
    uint64_t steps_per_epoch = samples / whole;
    *dropped = (uint32_t)(samples % whole);
    s->batches_per_epoch = (uint32_t)(steps_per_epoch * accumulate_of(s));
    s->epochs = request->epochs;
    s->steps = steps_per_epoch * request->epochs;
    return EK_OK;
}

/* Go on where the checkpoint was made: only with a data set of the same number of batches. */
static ek_status check_position(const ek_session *s, const ek_position *at, ek_error *error) {
    uint64_t steps_per_epoch = s->batches_per_epoch / accumulate_of(s);
    bool fits = at->batches < s->batches_per_epoch && at->batches % accumulate_of(s) == 0 && at->seed <= UINT32_MAX &&
                at->step == at->epoch * steps_per_epoch + at->batches / accumulate_of(s);
    if (!fits)
        return ek_fail(error, EK_BAD_CHECKPOINT, "the checkpoint is at step %" PRIu64 ", epoch %" PRIu32 ", batch %" PRIu32
                       ": not a place in this data set of %" PRIu32 " batches an epoch; \"state\" takes the parameters alone",
                       at->step, at->epoch, at->batches, s->batches_per_epoch);
    return EK_OK;
}

static ek_status open_checkpoint(ek_session *s, const ek_session_request *request, ek_file *file, ek_error *error) {
    bool resume = request->resume.text[0];
    ek_position at;
    s->position = (ek_position){.seed = request->seed};
    if (!resume && !request->state.text[0])
        return EK_OK;
    const char *path = resume ? request->resume.text : request->state.text;
    if (ek_checkpoint_open(s->platform, path, s->executor, file, &at, error) != EK_OK)
        return error->status;
    if (!resume)
        return EK_OK;
    if (check_position(s, &at, error) != EK_OK) {
        s->platform->unmap(file);
        return error->status;
    }
    s->position = at;
    return EK_OK;
}

static ek_status allocate(ek_session *s, bool streams, ek_error *error) {
    s->pick = s->platform->allocate((size_t)s->data.batch * sizeof *s->pick);
    bool orders = s->shuffle && !streams;
    if (orders)
        s->order = s->platform->allocate((size_t)s->samples * sizeof *s->order);
    if (!s->pick || (orders && !s->order))
        return ek_fail(error, EK_NO_MEMORY, "no memory for the order of %" PRIu32 " samples", s->samples);
    return EK_OK;
}

static ek_status open_output(ek_session *s, const ek_session_request *request, ek_error *error) {
    const ek_tensor *tensor = port_tensor(s, EK_PORT_OUTPUT, 0);
    uint8_t header[EK_NPY_HEADER_BYTES];
    uint32_t dim[EK_MAX_RANK] = {s->samples};
    for (uint32_t i = 1; i < tensor->rank; i++)
        dim[i] = tensor->dim[i];
    ek_npy_header(header, tensor->dtype, dim, tensor->rank);
    uint64_t bytes = sizeof header + tensor->bytes / s->data.batch * s->data.samples;
    if (s->platform->create(&s->out, request->out.text, bytes, error) != EK_OK)
        return error->status;
    s->writes_output = true;
    return s->platform->write(&s->out, header, sizeof header, error);
}

/* Room for the times of every op; kept until the next profiled session. */
static ek_status open_profile(ek_session *s, ek_error *error) {
    s->profiled = s->executor->program.header->ops;
    s->times = s->platform->allocate(s->profiled * sizeof *s->times);
    if (!s->times)
        return ek_fail(error, EK_NO_MEMORY, "no memory for the times of %" PRIu64 " ops", s->profiled);
    memset(s->times, 0, s->profiled * sizeof *s->times);
    return EK_OK;
}

/* The data set's files, or only what they must look like: then they come as shards. */
static ek_status open_data(ek_session *s, const ek_session_request *request, ek_error *error) {
    if (ek_dataset_bind(&s->data, s->platform, &s->executor->program, s->entry, error) != EK_OK)
        return error->status;
    s->samples = request->stream.samples;
    if (s->samples)
        return EK_OK;
    if (ek_dataset_open(&s->data, request->data.text, error) != EK_OK)
        return error->status;
    s->samples = s->data.samples;
    return EK_OK;
}

static void begin_spool(ek_session *s, const ek_stream *stream) {
    bool train = s->kind == EK_TRAIN_STEP;
    uint64_t per_step = (uint64_t)s->data.batch * (train ? accumulate_of(s) : 1), limit = s->steps * per_step;
    if (!train && s->samples < limit)
        limit = s->samples;
    ek_spool_begin(&s->spool, s->platform, stream, s->kept.id.text[0], s->step, per_step, limit);
}

/* Training does without a cache where there can be none. */
static void begin_cache(ek_session *s, const ek_session_request *request) {
    s->cached = (ek_cached){.storage = request->cache.storage};
    if (!request->cache.storage)
        return;
    if (request->stream.samples)
        ek_fail(&s->cached.why, EK_BAD_REQUEST, "the data set is streamed");
    else
        s->cache = ek_cache_open(s->platform, s->executor, request->data.text, &request->cache, &s->cached.why);
}

/* Everything that can fail. What it opens, `release` closes. */
static ek_status prepare(ek_session *next, const ek_session_request *request, uint32_t *dropped, ek_file *checkpoint,
                         ek_error *error) {
    if (check_entry(next, error) != EK_OK || open_data(next, request, error) != EK_OK ||
        plan(next, request, dropped, error) != EK_OK || allocate(next, request->stream.samples, error) != EK_OK ||
        (next->kind == EK_PREDICT && open_output(next, request, error) != EK_OK) ||
        (request->profile && open_profile(next, error) != EK_OK))
        return error->status;
    return open_checkpoint(next, request, checkpoint, error);
}

static void begin_training(ek_session *s, const ek_session_request *request) {
    s->step = s->position.step;
    if (s->step > s->steps)
        s->steps = s->step;
    if (request->steps && request->steps < s->steps - s->step)
        s->steps = s->step + request->steps;
    if (request->until && request->until < s->steps)
        s->steps = request->until > s->step ? request->until : s->step;
    s->saved_ns = s->platform->clock();
    if (s->position.epoch < s->epochs)
        begin_epoch(s);
}

/* The folder of a kept training: the last thing that can fail. */
static ek_status keep(ek_session *s, const ek_session_request *request, ek_started *started, ek_error *error) {
    s->kept = request->kept;
    s->kept.platform = s->platform;
    started->next = s->kept.id.text[0] ? s->kept.count : s->records->next;
    s->kept.started = *started;
    if (!s->kept.id.text[0])
        return EK_OK;
    if (!request->map)
        return ek_kept_reopen(&s->kept, error);
    s->kept.before = s->position.step;
    return ek_kept_create(&s->kept, request->map, request->map_bytes, error);
}

ek_status ek_session_start(ek_session *session, ek_executor *executor, const ek_session_request *request, ek_started *started,
                           ek_error *error) {
    ek_session next = {
        .platform = session->platform,
        .records = session->records,
        .sensors = session->sensors,
        .state = EK_RUNNING,
        .id = session->id + 1,
        .kind = request->kind,
        .token = request->token,
        .metrics = session->metrics,
        .executor = executor,
        .entry = ek_program_entry(&executor->program, request->kind),
        .update = request->kind == EK_TRAIN_STEP ? ek_program_entry(&executor->program, EK_UPDATE) : NULL,
        .shuffle = request->kind == EK_TRAIN_STEP && request->shuffle,
        .checkpoint = request->checkpoint,
        .writes_checkpoint = request->kind == EK_TRAIN_STEP && request->checkpoint.text[0],
        .every = request->every,
        .every_ns = request->every_ns,
    };
    ek_file checkpoint = {NULL, 0};
    bool prepared = prepare(&next, request, &started->dropped, &checkpoint, error) == EK_OK;
    if (prepared && request->kind == EK_TRAIN_STEP)
        begin_training(&next, request);
    started->id = next.id;
    started->steps = next.steps;
    started->samples = next.samples;
    if (!prepared || keep(&next, request, started, error) != EK_OK) {
        if (checkpoint.bytes)
            next.platform->unmap(&checkpoint);
        next.platform->release(next.times);
        release(&next);
        return error->status;
    }
    begin_spool(&next, &request->stream);
    begin_cache(&next, request);
    if (request->reset)
        ek_executor_reset(executor);
    if (checkpoint.bytes) {
        ek_checkpoint_apply(&checkpoint, executor);
        next.platform->unmap(&checkpoint);
    }
    if (request->profile) {
        next.platform->release(session->times);
        executor->times = next.times;
    } else {
        next.times = session->times;
        next.profiled = session->profiled;
    }
    if (request->kind != EK_TRAIN_STEP)
        next.position = session->position;
    if (request->kind == EK_EVALUATE)
        next.metrics = (ek_metrics){.id = next.id, .has_loss = port_data(&next, EK_PORT_LOSS, 0) != NULL};
    *session = next;
    return EK_OK;
}

void ek_session_forget(ek_session *s) {
    s->platform->release(s->times);
    *s = (ek_session){.platform = s->platform, .records = s->records, .sensors = s->sensors, .id = s->id};
}
