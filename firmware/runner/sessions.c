#include "sessions.h"

#include <string.h>

#include "fields.h"
#include "start.h"

ek_status ek_sessions_need_home(const ek_training *t, ek_error *error) {
    return t->platform->home ? EK_OK : ek_fail(error, EK_BAD_REQUEST, "this runner keeps no sessions: it was started without a home");
}

static bool is_live(const ek_training *t, const ek_session_id *id) { return ek_session_id_equal(id, &t->session.kept.id); }

/* How far a session is: from memory where it is this process's last one, else from its folder. */
static ek_kept_result look(const ek_training *t, const ek_session_id *id, const ek_kept_request *request, uint64_t records) {
    const ek_session *s = &t->session;
    ek_kept_result result = {EK_INTERRUPTED, request->before + records, request->started.steps, {EK_OK, ""}};
    if (is_live(t, id))
        result = (ek_kept_result){ek_session_seen(s), s->step, s->steps, s->error};
    else if (!ek_kept_read_result(t->platform, id, &result))
        result.state = EK_INTERRUPTED;
    return result;
}

/* ---- start, resume ---- */

static ek_status answer_again(const ek_kept_request *kept, const ek_cbor *request, const ek_session_id *id, ek_started *started,
                              ek_error *error) {
    size_t bytes = (size_t)(request->end - request->at);
    if (bytes != kept->map_bytes || memcmp(request->at, kept->map, bytes) != 0)
        return ek_fail(error, EK_BAD_REQUEST, "there is a session %s already, started otherwise", id->text);
    *started = kept->started;
    return EK_OK;
}

ek_status ek_sessions_start(ek_training *t, const ek_cbor *request, ek_session_request *r, ek_started *started, ek_error *error) {
    ek_kept_request kept;
    if (ek_sessions_need_home(t, error) != EK_OK)
        return error->status;
    if (ek_kept_open(t->platform, &r->kept.id, &kept, error) == EK_OK) {
        ek_status status = answer_again(&kept, request, &r->kept.id, started, error);
        t->platform->unmap(&kept.file);
        return status;
    }
    if (error->status != EK_NO_SESSION)
        return error->status;
    ek_kept_path(t->platform, &r->kept.id, ek_kept_checkpoint, &r->checkpoint);
    ek_kept_path(t->platform, &r->kept.id, ek_kept_spool, &r->stream.folder);
    ek_kept_path(t->platform, &r->kept.id, ek_kept_cache, &r->cache.path);
    r->map = request->at;
    r->map_bytes = (size_t)(request->end - request->at);
    return ek_training_start(t, r, started, error);
}

/* Where the session goes on: behind its checkpoint where the records reach that far, else at its begin, as it was asked for. */
static ek_status place_resumed(const ek_training *t, const ek_kept_request *kept, ek_session_request *r, ek_error *error) {
    ek_path checkpoint;
    uint64_t step;
    ek_kept_path(t->platform, &r->kept.id, ek_kept_checkpoint, &checkpoint);
    ek_kept_path(t->platform, &r->kept.id, ek_kept_spool, &r->stream.folder);
    ek_kept_path(t->platform, &r->kept.id, ek_kept_cache, &r->cache.path);
    r->kept.before = kept->before;
    if (ek_kept_count(t->platform, &r->kept.id, kept->before, &r->kept.count, error) != EK_OK)
        return error->status;
    if (ek_checkpoint_step(t->platform, checkpoint.text, &step) && step >= kept->before &&
        step - kept->before <= r->kept.count) {
        r->resume = checkpoint;
        r->state.text[0] = 0;
        r->reset = false;
    }
    r->checkpoint = checkpoint;
    r->steps = 0;
    r->until = kept->started.steps;
    return EK_OK;
}

static ek_status resume_kept(ek_training *t, const ek_session_id *id, const ek_kept_request *kept, ek_started *started,
                             ek_error *error) {
    ek_session_request r;
    ek_cbor map;
    if (!ek_cbor_open(&map, kept->map, kept->map_bytes))
        return ek_fail(error, EK_IO, "the request of session %s is damaged; remove the session", id->text);
    if (ek_start_read(&map, &r, error) != EK_OK || ek_training_busy(t, error) != EK_OK)
        return error->status;
    if (look(t, id, kept, 0).state == EK_DONE)
        return ek_fail(error, EK_NO_SESSION, "session %s is done: there is nothing to go on with", id->text);
    if (place_resumed(t, kept, &r, error) != EK_OK)
        return error->status;
    return ek_training_start(t, &r, started, error);
}

ek_status ek_sessions_resume(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_session_id id;
    ek_kept_request kept;
    ek_started started = t->session.kept.started;
    if (ek_read_session(request, true, &id, error) != EK_OK || ek_sessions_need_home(t, error) != EK_OK ||
        ek_kept_open(t->platform, &id, &kept, error) != EK_OK)
        return error->status;
    bool again = ek_training_runs(t) && is_live(t, &id);
    ek_status status = again ? EK_OK : resume_kept(t, &id, &kept, &started, error);
    t->platform->unmap(&kept.file);
    if (status == EK_OK)
        ek_started_write(&started, to);
    return status;
}

/* ---- records ---- */

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* How many records a session has, and its state. Its folder is asked only where memory does not know: pulls are frequent. */
static ek_status find_records(const ek_training *t, const ek_session_id *id, uint64_t *count, ek_session_state *state,
                              ek_error *error) {
    ek_kept_request kept;
    uint64_t bytes;
    if (is_live(t, id)) {
        *count = t->session.kept.count;
        *state = ek_session_seen(&t->session);
        return EK_OK;
    }
    if (ek_kept_open(t->platform, id, &kept, error) != EK_OK)
        return error->status;
    t->platform->unmap(&kept.file); /* its numbers stay */
    ek_kept_touch(t->platform, id);
    ek_kept_measure(t->platform, id, &bytes, count);
    *state = look(t, id, &kept, *count).state;
    return EK_OK;
}

ek_status ek_sessions_records(const ek_training *t, const ek_session_id *id, uint64_t since, uint64_t max, ek_cbor_writer *to,
                              ek_error *error) {
    enum { REST = 80, MOST = 128 }; /* bytes of the keys, the cursors and the state; records of an answer */
    ek_record records[MOST];
    ek_session_state state;
    uint64_t count;
    size_t got;
    if (ek_sessions_need_home(t, error) != EK_OK || find_records(t, id, &count, &state, error) != EK_OK)
        return error->status;
    uint64_t first = smaller(since, count), room = ((uint64_t)(to->end - to->at) - REST) / EK_RECORD_CBOR;
    size_t most = (size_t)smaller(smaller(max, count - first), smaller(room, MOST));
    if (ek_kept_read(t->platform, id, first, records, most, &got, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 5);
    ek_put_uint(to, "first", first);
    ek_cbor_write_text(to, "records");
    ek_cbor_write_array(to, got);
    for (size_t i = 0; i < got; i++)
        ek_record_write(&records[i], first + i, to);
    ek_put_uint(to, "next", first + got);
    ek_put_uint(to, "left", count - first - got);
    ek_put_text(to, "state", ek_state_name(state));
    return EK_OK;
}

/* ---- sessions ---- */

static ek_status write_session(const ek_training *t, const ek_session_id *id, ek_cbor_writer *to, ek_error *error) {
    ek_session_request r;
    ek_kept_request kept;
    ek_cbor map;
    ek_path checkpoint;
    uint64_t bytes, records, saved = 0;
    if (ek_kept_open(t->platform, id, &kept, error) != EK_OK)
        return error->status;
    if (!ek_cbor_open(&map, kept.map, kept.map_bytes) || ek_start_read(&map, &r, error) != EK_OK)
        memset(&r, 0, sizeof r); /* as if it named nothing */
    t->platform->unmap(&kept.file);
    ek_kept_measure(t->platform, id, &bytes, &records);
    ek_kept_path(t->platform, id, ek_kept_checkpoint, &checkpoint);
    bool has_checkpoint = ek_checkpoint_step(t->platform, checkpoint.text, &saved);
    ek_kept_result result = look(t, id, &kept, records);
    bool failed = result.state == EK_FAILED;
    ek_cbor_write_map(to, 13);
    ek_put_text(to, "id", id->text);
    ek_put_text(to, "state", ek_state_name(result.state));
    ek_put_uint(to, "step", result.step);
    ek_put_uint(to, "steps", result.steps);
    ek_put_uint(to, "records", records);
    ek_put_uint(to, "rc", failed ? result.error.status : EK_OK);
    ek_put_text(to, "why", failed ? result.error.text : "");
    ek_put_text(to, "program", r.program.text);
    ek_put_text(to, "data", r.data.text);
    ek_cbor_write_text(to, "stream");
    if (r.stream.samples)
        ek_cbor_write_bytes(to, r.stream.digest, sizeof r.stream.digest);
    else
        ek_cbor_write_null(to);
    ek_put_uint(to, "bytes", bytes);
    ek_put_uint_or_null(to, "checkpoint", has_checkpoint, saved);
    ek_cbor_write_text(to, "fetched");
    ek_cbor_write_bool(to, ek_kept_fetched(t->platform, id));
    return EK_OK;
}

/* As many as fit from the one numbered `skip` on; returns how many names were seen. */
static size_t write_sessions(const ek_training *t, const ek_kept_name *names, size_t count, ek_cbor_writer *to) {
    enum { REST = 32, MOST = 23, ARRAY = 0x80 }; /* bytes of the other keys; what an array's first byte can count */
    uint8_t *head = to->at;
    size_t seen = 0, written = 0;
    ek_cbor_write_array(to, 0);
    for (; seen < count && written < MOST; seen++) {
        ek_cbor_writer part = {to->at, to->end - REST, to->overflow};
        ek_error unused;
        if (write_session(t, &names[seen].id, &part, &unused) != EK_OK)
            continue; /* damaged, or removed meanwhile */
        if (part.overflow) {
            to->overflow |= written == 0; /* it would never fit */
            break;
        }
        to->at = part.at;
        written++;
    }
    if (!to->overflow)
        *head = (uint8_t)(ARRAY | written);
    return seen;
}

ek_status ek_sessions_list(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    ek_kept_name *names;
    size_t total;
    uint64_t skip = 0;
    if (ek_read_uint(request, "skip", false, UINT64_MAX, &skip, error) != EK_OK || ek_sessions_need_home(t, error) != EK_OK ||
        ek_kept_list(t->platform, &names, &total, error) != EK_OK)
        return error->status;
    size_t first = (size_t)smaller(skip, total);
    ek_cbor_write_map(to, 3);
    ek_cbor_write_text(to, "sessions");
    size_t seen = total ? write_sessions(t, names + first, total - first, to) : write_sessions(t, NULL, 0, to);
    ek_put_uint(to, "next", first + seen);
    ek_put_uint(to, "total", total);
    if (names)
        t->platform->release(names);
    return EK_OK;
}

ek_status ek_sessions_forget(ek_training *t, const ek_session_id *id, ek_error *error) {
    if (is_live(t, id) && ek_training_busy(t, error) != EK_OK)
        return error->status;
    if (ek_kept_remove(t->platform, id, error) != EK_OK)
        return error->status;
    if (is_live(t, id))
        t->session.kept.id.text[0] = 0; /* nothing of it is to be found any more */
    return EK_OK;
}

ek_status ek_sessions_remove(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_session_id id;
    if (ek_read_session(request, true, &id, error) != EK_OK || ek_sessions_need_home(t, error) != EK_OK ||
        ek_sessions_forget(t, &id, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 0);
    return EK_OK;
}

ek_status ek_sessions_fetched(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_session_id id;
    ek_kept_request kept;
    if (ek_read_session(request, true, &id, error) != EK_OK || ek_sessions_need_home(t, error) != EK_OK ||
        ek_kept_open(t->platform, &id, &kept, error) != EK_OK)
        return error->status;
    ek_session_state state = look(t, &id, &kept, 0).state;
    t->platform->unmap(&kept.file);
    if (state != EK_DONE)
        return ek_fail(error, EK_NO_SESSION, "session %s is not done: there is more to come", id.text);
    if (ek_kept_set_fetched(t->platform, &id, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 0);
    return EK_OK;
}
