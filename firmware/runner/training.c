#include "training.h"

#include <inttypes.h>
#include <string.h>

#include "discard.h"
#include "fields.h"
#include "limits.h"
#include "sessions.h"
#include "shards.h"
#include "start.h"

enum { INFO, LOAD, START, STATUS, RECORDS, STOP, SAVE, METRICS, PROFILE, SENSORS, SESSIONS, RESUME, REMOVE, SHARDS, FETCHED, DISCARD };
enum { LIMITS = 20 };

void ek_training_init(ek_training *t) {
    t->session.platform = t->platform;
    t->session.records = &t->records;
    t->session.sensors = t->sensors;
}

bool ek_training_defers(const ek_training *t, const ek_smp_header *request) {
    return t->session.in_step && request->group == EK_TRAINING_GROUP && request->command == SAVE;
}

bool ek_training_runs(const ek_training *t) { return t->session.state == EK_RUNNING; }

bool ek_training_steps(const ek_training *t) { return ek_training_runs(t) && !ek_session_waits(&t->session); }

bool ek_training_end(void *context, bool force) {
    ek_training *t = context;
    if (ek_training_runs(t) && !force)
        return false;
    t->ending = true;
    return true;
}

/* ---- info, load ---- */

static ek_status info(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    const ek_platform *platform = t->platform;
    const ek_board *board = &platform->board;
    uint64_t disk = 0;
    (void)request, (void)error;
    ek_cbor_write_map(to, 13 + (board->port != NULL) + (board->reset != NULL) + (board->stack_peak != NULL));
    ek_put_text(to, "version", board->version);
    ek_put_uint(to, "protocol", EK_PROTOCOL);
    ek_put_text(to, "architecture", board->architecture);
    ek_put_text(to, "backend", board->backend);
    ek_put_text(to, "isa", board->isa);
    ek_put_uint(to, "threads", board->threads);
    ek_put_uint(to, "cores", board->cores);
    ek_put_uint(to, "memory", board->memory_bytes);
    ek_put_uint(to, "pid", board->pid);
    ek_put_text_or_null(to, "home", platform->home);
    ek_put_text_or_null(to, "executable", platform->executable);
    ek_put_uint(to, "instance", platform->instance);
    bool known = (platform->home || platform->memory_limit) && platform->disk_free(platform->home, &disk);
    ek_put_uint_or_null(to, "disk", known, disk);
    if (board->port)
        ek_put_text(to, "port", board->port);
    if (board->reset)
        ek_put_text(to, "reset", board->reset);
    if (board->stack_peak)
        ek_put_uint(to, "stack", board->stack_peak());
    return EK_OK;
}

static void unload(ek_training *t, ek_loaded *loaded) {
    t->platform->release(loaded->memory);
    if (loaded->file.bytes)
        t->platform->unmap(&loaded->file);
    *loaded = (ek_loaded){.memory = NULL};
}

/* Map and verify; *bytes is the memory that it takes. On failure the caller unloads what there is. */
static ek_status open_program(ek_training *t, const char *path, ek_loaded *to, ek_program *program, size_t *bytes, ek_error *error) {
    const ek_platform *platform = t->platform;
    if (platform->map(path, &to->file, error) != EK_OK ||
        ek_program_open(program, to->file.bytes, to->file.size, error) != EK_OK ||
        ek_program_check_batch(program, error) != EK_OK ||
        ek_executor_size(program, t->backend, ek_pool_threads(t->pool), bytes, error) != EK_OK)
        return error->status;
    platform->forget(to->file.bytes, to->file.size); /* the digest read all of it */
    program->forget = platform->forget;
    size_t held = !platform->in_memory || platform->in_memory(&to->file) ? to->file.size : 0;
    if (platform->memory_limit && (held > platform->memory_limit || *bytes > platform->memory_limit - held))
        return ek_fail(error, EK_NO_MEMORY, "the program takes %zu bytes of memory, and its file %zu; the board has %zu", *bytes,
                       held, platform->memory_limit);
    return EK_OK;
}

static ek_status lay_out(ek_training *t, ek_loaded *to, const ek_program *program, size_t bytes, ek_error *error) {
    to->memory = t->platform->allocate(bytes);
    if (!to->memory)
        return ek_fail(error, EK_NO_MEMORY, "the program takes %zu bytes of memory", bytes);
    return ek_executor_load(&to->executor, program, t->backend, t->pool, to->memory, error);
}

/* `path` becomes the loaded program. On failure the old one stays. Not while a session runs. */
static ek_status replace_program(ek_training *t, const char *path, ek_error *error) {
    ek_loaded next = {.memory = NULL};
    ek_program program;
    size_t bytes;
    if (open_program(t, path, &next, &program, &bytes, error) != EK_OK) {
        unload(t, &next);
        return error->status;
    }
    if (t->platform->memory_limit) { /* there is no room for both, and nothing can fail any more but for want of room */
        ek_session_forget(&t->session);
        unload(t, &t->loaded);
    }
    if (lay_out(t, &next, &program, bytes, error) != EK_OK) {
        unload(t, &next);
        return error->status;
    }
    ek_session_forget(&t->session);
    unload(t, &t->loaded);
    t->loaded = next;
    ek_executor *executor = &t->loaded.executor;
    executor->clock = t->platform->clock;
    executor->poll = t->poll;
    executor->poll_context = t->poll_context;
    return EK_OK;
}

ek_status ek_training_busy(const ek_training *t, ek_error *error) {
    const ek_session_id *id = &t->session.kept.id;
    if (!ek_training_runs(t))
        return EK_OK;
    if (id->text[0])
        return ek_fail(error, EK_BUSY, "session %s is running; stop it first", id->text);
    return ek_fail(error, EK_BUSY, "session %u is running; stop it first", t->session.id);
}

static ek_status load(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_path path;
    if (ek_read_path(request, "path", true, &path, error) != EK_OK || ek_training_busy(t, error) != EK_OK ||
        replace_program(t, path.text, error) != EK_OK)
        return error->status;
    const ek_executor *executor = &t->loaded.executor;
    const ek_header *header = executor->program.header;
    ek_cbor_write_map(to, 6);
    ek_cbor_write_text(to, "sha");
    ek_cbor_write_bytes(to, header->sha256, sizeof header->sha256);
    ek_put_uint(to, "arena", header->arena_bytes);
    ek_put_uint(to, "state", header->state_bytes);
    ek_put_uint(to, "constants", header->constants_bytes);
    ek_put_uint(to, "scratch", executor->scratch_bytes);
    ek_put_uint(to, "prepared", executor->prepared_bytes);
    return EK_OK;
}

/* Whether the file says that it is the loaded program; that one was verified. */
static bool is_loaded(const ek_training *t, const char *path) {
    ek_header head;
    ek_error unused;
    ek_file file;
    if (!t->loaded.memory || t->platform->map(path, &file, &unused) != EK_OK)
        return false;
    bool same = file.size >= sizeof head;
    if (same) {
        memcpy(&head, file.bytes, sizeof head);
        same = memcmp(head.sha256, t->loaded.executor.program.header->sha256, sizeof head.sha256) == 0;
    }
    t->platform->unmap(&file);
    return same;
}

static ek_status need_program(const ek_training *t, ek_error *error) {
    return t->loaded.memory ? EK_OK : ek_fail(error, EK_NO_PROGRAM, "no program is loaded");
}

/* ---- start, status, stop ---- */

void ek_started_write(const ek_started *started, ek_cbor_writer *to) {
    ek_cbor_write_map(to, 5);
    ek_put_uint(to, "id", started->id);
    ek_put_uint(to, "steps", started->steps);
    ek_put_uint(to, "samples", started->samples);
    ek_put_uint(to, "dropped", started->dropped);
    ek_put_uint(to, "next", started->next);
}

ek_status ek_training_start(ek_training *t, const ek_session_request *request, ek_started *started, ek_error *error) {
    const char *program = request->program.text;
    if (ek_training_busy(t, error) != EK_OK ||
        (program[0] && !is_loaded(t, program) && replace_program(t, program, error) != EK_OK) || need_program(t, error) != EK_OK)
        return error->status;
    return ek_session_start(&t->session, &t->loaded.executor, request, started, error);
}

static ek_status start(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_session_request r;
    ek_started started;
    if (ek_start_read(request, &r, error) != EK_OK)
        return error->status;
    if (r.token && r.token == t->session.token) { /* the answer was lost on its way */
        ek_started_write(&t->session.kept.started, to);
        return EK_OK;
    }
    if (r.kept.id.text[0] ? ek_sessions_start(t, request, &r, &started, error) != EK_OK
                          : ek_training_start(t, &r, &started, error) != EK_OK)
        return error->status;
    ek_started_write(&started, to);
    return EK_OK;
}

static ek_status status(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    const ek_session *s = &t->session;
    (void)request, (void)error;
    ek_cbor_write_map(to, 9);
    ek_put_text(to, "state", ek_state_name(ek_session_seen(s)));
    ek_put_uint(to, "id", s->id);
    ek_put_uint(to, "step", s->step);
    ek_put_uint(to, "steps", s->steps);
    ek_put_uint(to, "next", t->records.next);
    ek_put_uint(to, "rc", s->state == EK_FAILED ? s->error.status : EK_OK);
    ek_put_text(to, "why", s->state == EK_FAILED ? s->error.text : "");
    ek_put_text_or_null(to, "session", s->kept.id.text);
    ek_cached cached = ek_session_cached(s);
    ek_cbor_write_text(to, "cache");
    if (!cached.storage) {
        ek_cbor_write_null(to);
        return EK_OK;
    }
    ek_cbor_write_map(to, 5);
    ek_put_text(to, "storage", ek_cache_word(cached.storage));
    ek_put_uint(to, "rows", cached.rows);
    ek_put_uint(to, "samples", cached.samples);
    ek_put_uint(to, "bytes", cached.bytes);
    ek_put_text(to, "why", cached.why.status == EK_OK ? "" : cached.why.text);
    return EK_OK;
}

static ek_status stop(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_session_id id;
    if (ek_read_session(request, false, &id, error) != EK_OK)
        return error->status;
    if (ek_training_runs(t) && id.text[0] && !ek_session_id_equal(&id, &t->session.kept.id))
        return ek_fail(error, EK_NO_SESSION, "session %s is not the one that runs", id.text);
    if (ek_training_runs(t))
        t->session.stop_requested = true;
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

/* ---- records, profile: as many as fit in the response ---- */

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static ek_status records(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    enum { REST = 80 }; /* bytes of the keys, the cursors and the state */
    const ek_training *t = context;
    ek_session_id id;
    uint64_t since = 0, max = EK_RECORDS;
    if (ek_read_uint(request, "since", true, UINT64_MAX, &since, error) != EK_OK ||
        ek_read_uint(request, "max", false, UINT64_MAX, &max, error) != EK_OK ||
        ek_read_session(request, false, &id, error) != EK_OK)
        return error->status;
    if (id.text[0])
        return ek_sessions_records(t, &id, since, max, to, error);
    uint64_t first = ek_records_first(&t->records, since);
    uint64_t room = ((uint64_t)(to->end - to->at) - REST) / EK_RECORD_CBOR;
    uint64_t next = first + smaller(smaller(max, room), t->records.next - first);
    ek_cbor_write_map(to, 5);
    ek_put_uint(to, "first", first);
    ek_cbor_write_text(to, "records");
    ek_cbor_write_array(to, next - first);
    for (uint64_t i = first; i < next; i++)
        ek_record_write(ek_records_at(&t->records, i), i, to);
    ek_put_uint(to, "next", next);
    ek_put_uint(to, "left", t->records.next - next);
    ek_put_text(to, "state", ek_state_name(ek_session_seen(&t->session)));
    return EK_OK;
}

static ek_status profile(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    enum { REST = 64, ITEM = 1 + 5 + 9 + 9 };
    const ek_training *t = context;
    const ek_session *s = &t->session;
    uint64_t since = 0;
    if (ek_read_uint(request, "since", true, UINT64_MAX, &since, error) != EK_OK)
        return error->status;
    if (!s->times)
        return ek_fail(error, EK_NO_SESSION, "no session was started with \"profile\" since the program was loaded");
    uint64_t first = smaller(since, s->profiled);
    uint64_t room = ((uint64_t)(to->end - to->at) - REST) / ITEM;
    uint64_t next = first + smaller(room, s->profiled - first);
    ek_cbor_write_map(to, 4);
    ek_put_uint(to, "first", first);
    ek_cbor_write_text(to, "ops");
    ek_cbor_write_array(to, next - first);
    for (uint64_t i = first; i < next; i++) {
        ek_cbor_write_array(to, 3);
        ek_cbor_write_uint(to, i);
        ek_cbor_write_uint(to, s->times[i].runs);
        ek_cbor_write_uint(to, s->times[i].ns);
    }
    ek_put_uint(to, "next", next);
    ek_put_uint(to, "total", s->profiled);
    return EK_OK;
}

/* ---- save, metrics, sensors ---- */

static ek_status save(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    ek_path path;
    uint64_t bytes;
    if (ek_read_path(request, "path", true, &path, error) != EK_OK || need_program(t, error) != EK_OK ||
        ek_checkpoint_save(t->platform, path.text, &t->loaded.executor, &t->session.position, &bytes, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 1);
    ek_put_uint(to, "bytes", bytes);
    return EK_OK;
}

static ek_status metrics(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    const ek_metrics *m = &t->session.metrics;
    uint64_t id = m->id;
    if (ek_read_uint(request, "id", false, UINT32_MAX, &id, error) != EK_OK)
        return error->status;
    if (!m->known || id != m->id)
        return ek_fail(error, EK_NO_SESSION, "no evaluate session has been finished since the program was loaded%s",
                       id == m->id ? "" : ", or another one since then");
    ek_cbor_write_map(to, 4);
    ek_cbor_write_text(to, "loss");
    if (m->has_loss)
        ek_cbor_write_f64(to, m->loss_sum / m->weight);
    else
        ek_cbor_write_null(to);
    ek_put_uint(to, "correct", m->correct);
    ek_put_uint(to, "counted", m->counted);
    ek_put_uint(to, "samples", m->samples);
    return EK_OK;
}

static ek_status sensors(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    static const char *const keys[EK_SENSORS] = {"temperature", "clock", "throttled", "power"};
    ek_training *t = context;
    ek_path paths[EK_SENSORS];
    for (int i = 0; i < EK_SENSORS; i++)
        if (ek_read_path(request, keys[i], false, &paths[i], error) != EK_OK)
            return error->status;
    memcpy(t->sensors, paths, sizeof paths);
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

const ek_smp_command ek_training_commands[] = {
    {INFO, EK_SMP_READ, info},
    {LOAD, EK_SMP_WRITE, load},
    {START, EK_SMP_WRITE, start},
    {STATUS, EK_SMP_READ, status},
    {RECORDS, EK_SMP_READ, records},
    {STOP, EK_SMP_WRITE, stop},
    {SAVE, EK_SMP_WRITE, save},
    {METRICS, EK_SMP_READ, metrics},
    {PROFILE, EK_SMP_READ, profile},
    {SENSORS, EK_SMP_WRITE, sensors},
    {SESSIONS, EK_SMP_READ, ek_sessions_list},
    {RESUME, EK_SMP_WRITE, ek_sessions_resume},
    {REMOVE, EK_SMP_WRITE, ek_sessions_remove},
    {SHARDS, EK_SMP_WRITE, ek_shards},
    {FETCHED, EK_SMP_WRITE, ek_sessions_fetched},
    {DISCARD, EK_SMP_WRITE, ek_discard},
    {LIMITS, EK_SMP_READ, ek_limits_measure},
    {0, 0, NULL},
};

void ek_training_close(ek_training *t) {
    ek_session_forget(&t->session);
    unload(t, &t->loaded);
}
