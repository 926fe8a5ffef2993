#include "training.h"

#include <inttypes.h>
#include <string.h>

enum { INFO, LOAD, START, STATUS, RECORDS, STOP, SAVE, METRICS, PROFILE, SENSORS };

void ek_training_init(ek_training *t) {
    t->session.platform = t->platform;
    t->session.records = &t->records;
    t->session.sensors = t->sensors;
}

bool ek_training_defers(const ek_training *t, const ek_smp_header *request) {
    return t->session.in_step && request->group == EK_TRAINING_GROUP && request->command == SAVE;
}

static bool running(const ek_training *t) { return t->session.state == EK_RUNNING; }

/* ---- reading requests: a missing or mistyped key is BAD_REQUEST ---- */

static ek_status bad_key(ek_error *error, const char *key, const char *type) {
    return ek_fail(error, EK_BAD_REQUEST, "\"%s\" is missing or is no %s", key, type);
}

static ek_status read_path(const ek_cbor *map, const char *key, bool required, ek_path *path, ek_error *error) {
    ek_cbor value;
    const char *text;
    size_t length;
    path->text[0] = 0;
    if (!ek_cbor_find(map, key, &value))
        return required ? bad_key(error, key, "text") : EK_OK;
    if (!ek_cbor_text(&value, &text, &length))
        return bad_key(error, key, "text");
    if (length == 0 || length >= sizeof path->text || memchr(text, 0, length))
        return ek_fail(error, EK_BAD_REQUEST, "\"%s\" is empty, longer than %d bytes, or holds a zero byte", key,
                       EK_PATH_BYTES - 1);
    memcpy(path->text, text, length);
    path->text[length] = 0;
    return EK_OK;
}

/* `value` keeps what it holds where the key is absent and not required. */
static ek_status read_uint(const ek_cbor *map, const char *key, bool required, uint64_t most, uint64_t *value, ek_error *error) {
    ek_cbor item;
    if (!ek_cbor_find(map, key, &item))
        return required ? bad_key(error, key, "unsigned integer") : EK_OK;
    if (!ek_cbor_uint(&item, value))
        return bad_key(error, key, "unsigned integer");
    if (*value > most)
        return ek_fail(error, EK_BAD_REQUEST, "\"%s\" is %" PRIu64 ", at most %" PRIu64 " is possible", key, *value, most);
    return EK_OK;
}

static ek_status read_bool(const ek_cbor *map, const char *key, bool required, bool *value, ek_error *error) {
    ek_cbor item;
    *value = false;
    if (!ek_cbor_find(map, key, &item))
        return required ? bad_key(error, key, "boolean") : EK_OK;
    return ek_cbor_bool(&item, value) ? EK_OK : bad_key(error, key, "boolean");
}

/* ---- writing responses ---- */

static void put_uint(ek_cbor_writer *to, const char *key, uint64_t value) {
    ek_cbor_write_text(to, key);
    ek_cbor_write_uint(to, value);
}

static void put_text(ek_cbor_writer *to, const char *key, const char *value) {
    ek_cbor_write_text(to, key);
    ek_cbor_write_text(to, value);
}

static const char *state_name(ek_session_state state) {
    static const char *const names[] = {"idle", "running", "done", "stopped", "failed"};
    return names[state];
}

/* ---- info, load ---- */

static ek_status info(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    const ek_board *board = &t->platform->board;
    (void)request, (void)error;
    ek_cbor_write_map(to, 9);
    put_text(to, "version", board->version);
    put_uint(to, "protocol", EK_PROTOCOL);
    put_text(to, "architecture", board->architecture);
    put_text(to, "backend", "cpu");
    put_text(to, "isa", board->isa);
    put_uint(to, "threads", board->threads);
    put_uint(to, "cores", board->cores);
    put_uint(to, "memory", board->memory_bytes);
    put_uint(to, "pid", board->pid);
    return EK_OK;
}

static void unload(ek_training *t, ek_loaded *loaded) {
    t->platform->release(loaded->memory);
    if (loaded->file.bytes)
        t->platform->unmap(&loaded->file);
    *loaded = (ek_loaded){.memory = NULL};
}

/* Map, verify, allocate, lay out. On failure the caller unloads what there is. */
static ek_status load_program(ek_training *t, const char *path, ek_loaded *to, ek_error *error) {
    ek_program program;
    size_t bytes;
    int threads = ek_pool_threads(t->pool);
    if (t->platform->map(path, &to->file, error) != EK_OK ||
        ek_program_open(&program, to->file.bytes, to->file.size, error) != EK_OK ||
        ek_program_check_batch(&program, error) != EK_OK ||
        ek_executor_size(&program, t->backend, threads, &bytes, error) != EK_OK)
        return error->status;
    t->platform->forget(to->file.bytes, to->file.size); /* the digest read all of it */
    program.forget = t->platform->forget;
    to->memory = t->platform->allocate(bytes);
    if (!to->memory)
        return ek_fail(error, EK_NO_MEMORY, "the program takes %zu bytes of memory", bytes);
    return ek_executor_load(&to->executor, &program, t->backend, t->pool, to->memory, error);
}

static ek_status load(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_loaded next = {.memory = NULL};
    ek_path path;
    if (read_path(request, "path", true, &path, error) != EK_OK)
        return error->status;
    if (running(t))
        return ek_fail(error, EK_BUSY, "session %u is running; stop it first", t->session.id);
    if (load_program(t, path.text, &next, error) != EK_OK) {
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

    const ek_header *header = executor->program.header;
    ek_cbor_write_map(to, 6);
    ek_cbor_write_text(to, "sha");
    ek_cbor_write_bytes(to, header->sha256, sizeof header->sha256);
    put_uint(to, "arena", header->arena_bytes);
    put_uint(to, "state", header->state_bytes);
    put_uint(to, "constants", header->constants_bytes);
    put_uint(to, "scratch", executor->scratch_bytes);
    put_uint(to, "prepared", executor->prepared_bytes);
    return EK_OK;
}

static ek_status need_program(const ek_training *t, ek_error *error) {
    return t->loaded.memory ? EK_OK : ek_fail(error, EK_NO_PROGRAM, "no program is loaded");
}

/* ---- start, status, stop ---- */

static ek_status read_kind(const ek_cbor *map, uint32_t *kind, ek_error *error) {
    static const struct {
        const char *name;
        uint32_t kind;
    } kinds[] = {{"train", EK_TRAIN_STEP}, {"evaluate", EK_EVALUATE}, {"predict", EK_PREDICT}};
    ek_path word;
    if (read_path(map, "kind", true, &word, error) != EK_OK)
        return error->status;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(word.text, kinds[i].name) == 0) {
            *kind = kinds[i].kind;
            return EK_OK;
        }
    return ek_fail(error, EK_BAD_REQUEST, "\"kind\" is %.40s, not train, evaluate or predict", word.text);
}

static ek_status read_start(const ek_cbor *map, ek_session_request *r, ek_error *error) {
    uint64_t epochs = 0, seed = 0;
    memset(r, 0, sizeof *r);
    if (read_kind(map, &r->kind, error) != EK_OK)
        return error->status;
    bool train = r->kind == EK_TRAIN_STEP;
    if (read_path(map, "data", true, &r->data, error) != EK_OK || read_path(map, "resume", false, &r->resume, error) != EK_OK ||
        read_path(map, "state", false, &r->state, error) != EK_OK ||
        read_path(map, "checkpoint", false, &r->checkpoint, error) != EK_OK ||
        read_path(map, "out", r->kind == EK_PREDICT, &r->out, error) != EK_OK ||
        read_uint(map, "epochs", train, UINT32_MAX, &epochs, error) != EK_OK ||
        read_uint(map, "seed", train, UINT32_MAX, &seed, error) != EK_OK ||
        read_uint(map, "every", false, UINT64_MAX, &r->every, error) != EK_OK ||
        read_uint(map, "steps", false, UINT64_MAX, &r->steps, error) != EK_OK ||
        read_bool(map, "shuffle", train, &r->shuffle, error) != EK_OK ||
        read_bool(map, "reset", false, &r->reset, error) != EK_OK ||
        read_bool(map, "profile", false, &r->profile, error) != EK_OK)
        return error->status;
    r->epochs = (uint32_t)epochs;
    r->seed = (uint32_t)seed;
    if (train && epochs == 0)
        return ek_fail(error, EK_BAD_REQUEST, "\"epochs\" is 0");
    if (r->resume.text[0] && (!train || r->state.text[0]))
        return ek_fail(error, EK_BAD_REQUEST, "\"resume\" goes with train, and not with \"state\"");
    return EK_OK;
}

static ek_status start(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_session_request r;
    uint32_t dropped;
    if (read_start(request, &r, error) != EK_OK)
        return error->status;
    if (running(t))
        return ek_fail(error, EK_BUSY, "session %u is running; stop it first", t->session.id);
    if (need_program(t, error) != EK_OK ||
        ek_session_start(&t->session, &t->loaded.executor, &r, &dropped, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 5);
    put_uint(to, "id", t->session.id);
    put_uint(to, "steps", t->session.steps);
    put_uint(to, "samples", t->session.data.samples);
    put_uint(to, "dropped", dropped);
    put_uint(to, "next", t->records.next);
    return EK_OK;
}

static ek_status status(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    const ek_session *s = &t->session;
    (void)request, (void)error;
    ek_cbor_write_map(to, 7);
    put_text(to, "state", state_name(s->state));
    put_uint(to, "id", s->id);
    put_uint(to, "step", s->step);
    put_uint(to, "steps", s->steps);
    put_uint(to, "next", t->records.next);
    put_uint(to, "rc", s->state == EK_FAILED ? s->error.status : EK_OK);
    put_text(to, "why", s->state == EK_FAILED ? s->error.text : "");
    return EK_OK;
}

static ek_status stop(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    (void)request, (void)error;
    if (running(t))
        t->session.stop_requested = true;
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

/* ---- records, profile: as many as fit in the response ---- */

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static ek_status records(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    enum { REST = 64 }; /* bytes of the keys, the cursors and the state */
    const ek_training *t = context;
    uint64_t since = 0, max = EK_RECORDS;
    if (read_uint(request, "since", true, UINT64_MAX, &since, error) != EK_OK ||
        read_uint(request, "max", false, UINT64_MAX, &max, error) != EK_OK)
        return error->status;
    uint64_t first = ek_records_first(&t->records, since);
    uint64_t room = ((uint64_t)(to->end - to->at) - REST) / EK_RECORD_CBOR;
    uint64_t next = first + smaller(smaller(max, room), t->records.next - first);
    ek_cbor_write_map(to, 4);
    put_uint(to, "first", first);
    ek_cbor_write_text(to, "records");
    ek_cbor_write_array(to, next - first);
    for (uint64_t i = first; i < next; i++)
        ek_records_write(&t->records, i, to);
    put_uint(to, "next", next);
    put_text(to, "state", state_name(t->session.state));
    return EK_OK;
}

static ek_status profile(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    enum { REST = 64, ITEM = 1 + 5 + 9 + 9 };
    const ek_training *t = context;
    const ek_session *s = &t->session;
    uint64_t since = 0;
    if (read_uint(request, "since", true, UINT64_MAX, &since, error) != EK_OK)
        return error->status;
    if (!s->times)
        return ek_fail(error, EK_NO_SESSION, "no session was started with \"profile\" since the program was loaded");
    uint64_t first = smaller(since, s->profiled);
    uint64_t room = ((uint64_t)(to->end - to->at) - REST) / ITEM;
    uint64_t next = first + smaller(room, s->profiled - first);
    ek_cbor_write_map(to, 4);
    put_uint(to, "first", first);
    ek_cbor_write_text(to, "ops");
    ek_cbor_write_array(to, next - first);
    for (uint64_t i = first; i < next; i++) {
        ek_cbor_write_array(to, 3);
        ek_cbor_write_uint(to, i);
        ek_cbor_write_uint(to, s->times[i].runs);
        ek_cbor_write_uint(to, s->times[i].ns);
    }
    put_uint(to, "next", next);
    put_uint(to, "total", s->profiled);
    return EK_OK;
}

/* ---- save, metrics, sensors ---- */

static ek_status save(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    ek_path path;
    uint64_t bytes;
    if (read_path(request, "path", true, &path, error) != EK_OK || need_program(t, error) != EK_OK ||
        ek_checkpoint_save(t->platform, path.text, &t->loaded.executor, &t->session.position, &bytes, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 1);
    put_uint(to, "bytes", bytes);
    return EK_OK;
}

static ek_status metrics(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    const ek_metrics *m = &t->session.metrics;
    (void)request;
    if (!m->known)
        return ek_fail(error, EK_NO_SESSION, "no evaluate session has been finished since the program was loaded");
    ek_cbor_write_map(to, 4);
    ek_cbor_write_text(to, "loss");
    if (m->has_loss)
        ek_cbor_write_f64(to, m->loss_sum / m->weight);
    else
        ek_cbor_write_null(to);
    put_uint(to, "correct", m->correct);
    put_uint(to, "counted", m->counted);
    put_uint(to, "samples", m->samples);
    return EK_OK;
}

static ek_status sensors(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    static const char *const keys[EK_SENSORS] = {"temperature", "clock", "throttled", "power"};
    ek_training *t = context;
    ek_path paths[EK_SENSORS];
    for (int i = 0; i < EK_SENSORS; i++)
        if (read_path(request, keys[i], false, &paths[i], error) != EK_OK)
            return error->status;
    memcpy(t->sensors, paths, sizeof paths);
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

const ek_smp_command ek_training_commands[] = {
    {INFO, EK_SMP_READ, info},       {LOAD, EK_SMP_WRITE, load},       {START, EK_SMP_WRITE, start},
    {STATUS, EK_SMP_READ, status},   {RECORDS, EK_SMP_READ, records},  {STOP, EK_SMP_WRITE, stop},
    {SAVE, EK_SMP_WRITE, save},      {METRICS, EK_SMP_READ, metrics},  {PROFILE, EK_SMP_READ, profile},
    {SENSORS, EK_SMP_WRITE, sensors}, {0, 0, NULL},
};

void ek_training_close(ek_training *t) {
    ek_session_forget(&t->session);
    unload(t, &t->loaded);
}
