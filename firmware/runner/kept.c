#include "kept.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "crc32.h"

const char ek_kept_checkpoint[] = "checkpoint.ekc", ek_kept_spool[] = "spool", ek_kept_cache[] = "prefix";

static const char records_name[] = "records", request_name[] = "request", result_name[] = "result", fetched_name[] = "fetched";

const char *ek_state_name(ek_session_state state) {
    static const char *const names[] = {"idle", "running", "done", "stopped", "failed", "interrupted", "waiting"};
    return names[state];
}

bool ek_session_id_valid(const char *text, size_t length) {
    if (length < 1 || length > EK_SESSION_ID || text[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool ek_session_id_equal(const ek_session_id *a, const ek_session_id *b) { return strcmp(a->text, b->text) == 0; }

static void sessions_folder(const ek_platform *platform, ek_path *to) {
    snprintf(to->text, sizeof to->text, "%.*s/sessions", EK_HOME_BYTES, platform->home);
}

void ek_kept_path(const ek_platform *platform, const ek_session_id *id, const char *file, ek_path *to) {
    snprintf(to->text, sizeof to->text, "%.*s/sessions/%s%s%s", EK_HOME_BYTES, platform->home, id->text, *file ? "/" : "", file);
}

/* ---- records: 128 bytes a step ---- */

typedef struct {
    uint64_t step, step_ns, load_ns, compute_ns, update_ns, time_ns, rss_bytes;
    uint32_t epoch;
    float loss;
    int64_t sensors[EK_SENSORS];
    uint32_t known; /* bit i: sensor i; the next: rss */
    uint8_t zero[24];
    uint32_t crc;
} packed;

_Static_assert(sizeof(packed) == 128 && EK_SENSORS == 4, "docs/session-host.md");

enum { CHECKED = offsetof(packed, crc), RSS_KNOWN = 1 << EK_SENSORS };

static packed pack(const ek_record *r) {
    packed p = {.step = r->step, .step_ns = r->step_ns, .load_ns = r->load_ns, .compute_ns = r->compute_ns,
                .update_ns = r->update_ns, .time_ns = r->time_ns, .epoch = r->epoch, .loss = r->loss};
    for (int i = 0; i < EK_SENSORS; i++)
        if (r->readings.known[i]) {
            p.sensors[i] = r->readings.value[i];
            p.known |= 1u << i;
        }
    if (r->readings.rss_known) {
        p.rss_bytes = r->readings.rss_bytes;
        p.known |= RSS_KNOWN;
    }
    p.crc = ek_crc32(&p, CHECKED);
    return p;
}

static ek_record unpack(const packed *p) {
    ek_record r = {.step = p->step, .step_ns = p->step_ns, .load_ns = p->load_ns, .compute_ns = p->compute_ns,
                   .update_ns = p->update_ns, .time_ns = p->time_ns, .epoch = p->epoch, .loss = p->loss};
    for (int i = 0; i < EK_SENSORS; i++) {
        r.readings.known[i] = p->known >> i & 1;
        r.readings.value[i] = p->sensors[i];
    }
    r.readings.rss_known = p->known & RSS_KNOWN;
    r.readings.rss_bytes = p->rss_bytes;
    return r;
}

static bool whole(const packed *p) { return p->crc == ek_crc32(p, CHECKED); }

ek_status ek_kept_add(ek_kept *kept, const ek_record *record, ek_error *error) {
    if (!kept->id.text[0] || record->step <= kept->before + kept->count) /* a resumed training does some steps again */
        return EK_OK;
    packed p = pack(record);
    if (kept->platform->append(&kept->records, &p, sizeof p, error) != EK_OK)
        return error->status;
    kept->count++;
    return EK_OK;
}

ek_status ek_kept_sync(ek_kept *kept, ek_error *error) {
    return kept->id.text[0] ? kept->platform->sync(&kept->records, error) : EK_OK;
}

ek_status ek_kept_read(const ek_platform *platform, const ek_session_id *id, uint64_t first, ek_record *to, size_t most,
                       size_t *got, ek_error *error) {
    enum { AT_ONCE = 32 };
    packed part[AT_ONCE];
    ek_path path;
    size_t bytes = sizeof part;
    ek_kept_path(platform, id, records_name, &path);
    for (*got = 0; *got < most && bytes == sizeof part;) {
        size_t want = most - *got < AT_ONCE ? most - *got : AT_ONCE;
        if (platform->read_at(path.text, (first + *got) * sizeof *part, part, want * sizeof *part, &bytes, error) != EK_OK)
            return error->status;
        for (size_t i = 0; i < bytes / sizeof *part; i++) {
            if (!whole(&part[i]))
                return ek_fail(error, EK_IO, "record %" PRIu64 " of session %s is damaged", first + *got, id->text);
            to[(*got)++] = unpack(&part[i]);
        }
    }
    return EK_OK;
}

ek_status ek_kept_count(const ek_platform *platform, const ek_session_id *id, uint64_t before, uint64_t *count, ek_error *error) {
    ek_path path;
    ek_file file;
    ek_kept_path(platform, id, records_name, &path);
    *count = 0;
    if (platform->map(path.text, &file, error) != EK_OK)
        return error->status == EK_NOT_FOUND ? EK_OK : error->status;
    const packed *at = (const packed *)file.bytes;
    uint64_t there = file.size / sizeof *at;
    while (*count < there && whole(&at[*count]) && at[*count].step == before + *count + 1)
        (*count)++;
    platform->unmap(&file);
    return EK_OK;
}

/* ---- request: a head and the start's CBOR map, as it came ---- */

typedef struct {
    uint8_t magic[8];
    uint64_t number, before, steps;
    uint32_t id, samples, dropped;
    uint32_t map_bytes;
    uint8_t zero[12];
    uint32_t crc; /* of the bytes before it, then of the map */
} head;

_Static_assert(sizeof(head) == 64, "docs/session-host.md");

static const uint8_t magic[8] = {'E', 'K', 'S', 'E', 'S', 'S', '1', '\n'};

static uint32_t head_crc(const head *h, const void *map) {
    return ek_crc32_more(ek_crc32(h, offsetof(head, crc)), map, h->map_bytes);
}

static ek_status write_whole(const ek_platform *platform, const char *path, const void *a, size_t a_bytes, const void *b,
                             size_t b_bytes, ek_error *error) {
    ek_new_file file;
    if (platform->create(&file, path, a_bytes + b_bytes, error) != EK_OK)
        return error->status;
    if (platform->write(&file, a, a_bytes, error) != EK_OK || platform->write(&file, b, b_bytes, error) != EK_OK) {
        platform->abandon(&file);
        return error->status;
    }
    return platform->commit(&file, error);
}

static ek_status write_request(const ek_kept *kept, const void *map, size_t bytes, ek_error *error) {
    const ek_started *s = &kept->started;
    ek_kept_name *names;
    size_t count;
    ek_path path;
    if (ek_kept_list(kept->platform, &names, &count, error) != EK_OK)
        return error->status;
    head h = {.number = count ? names[count - 1].number + 1 : 1, .before = kept->before, .steps = s->steps, .id = s->id,
              .samples = s->samples, .dropped = s->dropped, .map_bytes = (uint32_t)bytes};
    kept->platform->release(names);
    memcpy(h.magic, magic, sizeof magic);
    h.crc = head_crc(&h, map);
    ek_kept_path(kept->platform, &kept->id, request_name, &path);
    return write_whole(kept->platform, path.text, &h, sizeof h, map, bytes, error);
}

ek_status ek_kept_open(const ek_platform *platform, const ek_session_id *id, ek_kept_request *r, ek_error *error) {
    ek_path path;
    ek_kept_path(platform, id, request_name, &path);
    if (platform->map(path.text, &r->file, error) != EK_OK)
        return error->status == EK_NOT_FOUND ? ek_fail(error, EK_NO_SESSION, "there is no session %s", id->text) : error->status;
    head h = {.map_bytes = 0};
    if (r->file.size >= sizeof h)
        memcpy(&h, r->file.bytes, sizeof h);
    r->map = r->file.bytes + sizeof h;
    r->map_bytes = h.map_bytes;
    if (r->file.size < sizeof h || memcmp(h.magic, magic, sizeof magic) != 0 || r->file.size - sizeof h != h.map_bytes ||
        h.crc != head_crc(&h, r->map)) {
        platform->unmap(&r->file);
        return ek_fail(error, EK_IO, "%.160s is damaged; remove the session", path.text);
    }
    r->number = h.number;
    r->before = h.before;
    r->started = (ek_started){.id = h.id, .samples = h.samples, .dropped = h.dropped, .steps = h.steps, .next = 0};
    return EK_OK;
}

/* ---- result: a small CBOR map ---- */

enum { RESULT_BYTES = 512 };

static ek_status write_result(const ek_kept *kept, const ek_kept_result *result, ek_error *error) {
    uint8_t bytes[RESULT_BYTES];
    ek_cbor_writer to = {bytes, bytes + sizeof bytes, false};
    bool failed = result->state == EK_FAILED;
    ek_path path;
    ek_cbor_write_map(&to, 5);
    ek_cbor_write_text(&to, "state");
    ek_cbor_write_text(&to, ek_state_name(result->state));
    ek_cbor_write_text(&to, "step");
    ek_cbor_write_uint(&to, result->step);
    ek_cbor_write_text(&to, "steps");
    ek_cbor_write_uint(&to, result->steps);
    ek_cbor_write_text(&to, "rc");
    ek_cbor_write_uint(&to, failed ? result->error.status : EK_OK);
    ek_cbor_write_text(&to, "why");
    ek_cbor_write_text(&to, failed ? result->error.text : "");
    ek_kept_path(kept->platform, &kept->id, result_name, &path);
    return write_whole(kept->platform, path.text, bytes, (size_t)(to.at - bytes), "", 0, error);
}

static bool find_uint(const ek_cbor *map, const char *key, uint64_t most, uint64_t *value) {
    ek_cbor item;
    return ek_cbor_find(map, key, &item) && ek_cbor_uint(&item, value) && *value <= most;
}

/* "done", "stopped" or "failed". */
static bool find_state(const ek_cbor *map, ek_session_state *state) {
    ek_cbor item;
    const char *text;
    size_t length;
    if (!ek_cbor_find(map, "state", &item) || !ek_cbor_text(&item, &text, &length))
        return false;
    for (*state = EK_DONE; *state <= EK_FAILED; (*state)++)
        if (strlen(ek_state_name(*state)) == length && memcmp(ek_state_name(*state), text, length) == 0)
            return true;
    return false;
}

bool ek_kept_read_result(const ek_platform *platform, const ek_session_id *id, ek_kept_result *result) {
    uint8_t bytes[RESULT_BYTES];
    ek_cbor map, item;
    ek_path path;
    ek_error unused;
    size_t got, length;
    const char *why;
    uint64_t rc;
    ek_kept_path(platform, id, result_name, &path);
    if (platform->read_at(path.text, 0, bytes, sizeof bytes, &got, &unused) != EK_OK || got == 0 ||
        !ek_cbor_open(&map, bytes, got) || !find_state(&map, &result->state) ||
        !find_uint(&map, "step", UINT64_MAX, &result->step) || !find_uint(&map, "steps", UINT64_MAX, &result->steps) ||
        !find_uint(&map, "rc", UINT16_MAX, &rc) || !ek_cbor_find(&map, "why", &item) || !ek_cbor_text(&item, &why, &length))
        return false;
    ek_fail(&result->error, (ek_status)rc, "%.*s", (int)length, why);
    return true;
}

/* ---- fetched: an empty file ---- */

ek_status ek_kept_set_fetched(const ek_platform *platform, const ek_session_id *id, ek_error *error) {
    ek_path path;
    ek_kept_path(platform, id, fetched_name, &path);
    return write_whole(platform, path.text, "", 0, "", 0, error);
}

bool ek_kept_fetched(const ek_platform *platform, const ek_session_id *id) {
    ek_path path;
    ek_error unused;
    size_t got;
    uint8_t byte;
    ek_kept_path(platform, id, fetched_name, &path);
    return platform->read_at(path.text, 0, &byte, sizeof byte, &got, &unused) == EK_OK;
}

void ek_kept_touch(const ek_platform *platform, const ek_session_id *id) {
    ek_path path;
    ek_kept_path(platform, id, fetched_name, &path);
    platform->touch(path.text);
}

/* ---- the folder ---- */

static void abandon(ek_kept *kept) {
    ek_error unused;
    kept->platform->close(&kept->records);
    (void)ek_kept_remove(kept->platform, &kept->id, &unused);
}

static ek_status open_records(ek_kept *kept, ek_error *error) {
    ek_path path;
    ek_kept_path(kept->platform, &kept->id, records_name, &path);
    return kept->platform->open_append(&kept->records, path.text, kept->count * sizeof(packed), error);
}

/* Empty: what an earlier host left there is brought again. */
static ek_status make_spool(const ek_kept *kept, ek_error *error) {
    ek_path path;
    ek_kept_path(kept->platform, &kept->id, ek_kept_spool, &path);
    if (kept->platform->remove(path.text, error) != EK_OK)
        return error->status;
    return kept->streams ? kept->platform->make_folder(path.text, error) : EK_OK;
}

ek_status ek_kept_create(ek_kept *kept, const void *map, size_t bytes, ek_error *error) {
    const ek_platform *platform = kept->platform;
    ek_path folder, all;
    kept->count = 0;
    kept->records.handle = -1;
    sessions_folder(platform, &all);
    ek_kept_path(platform, &kept->id, "", &folder);
    if (platform->make_folder(all.text, error) != EK_OK || ek_kept_remove(platform, &kept->id, error) != EK_OK ||
        platform->make_folder(folder.text, error) != EK_OK)
        return error->status;
    if (open_records(kept, error) != EK_OK || make_spool(kept, error) != EK_OK || write_request(kept, map, bytes, error) != EK_OK) {
        abandon(kept);
        return error->status;
    }
    return EK_OK;
}

ek_status ek_kept_reopen(ek_kept *kept, ek_error *error) {
    ek_path result;
    ek_kept_path(kept->platform, &kept->id, result_name, &result);
    if (open_records(kept, error) != EK_OK)
        return error->status;
    if (make_spool(kept, error) != EK_OK || kept->platform->remove(result.text, error) != EK_OK) {
        kept->platform->close(&kept->records);
        return error->status;
    }
    return EK_OK;
}

ek_status ek_kept_end(ek_kept *kept, const ek_kept_result *result, ek_error *error) {
    if (!kept->id.text[0])
        return EK_OK;
    ek_status status = kept->records.handle >= 0 ? kept->platform->sync(&kept->records, error) : EK_OK;
    kept->platform->close(&kept->records);
    if (status != EK_OK && result->state != EK_FAILED)
        return status;
    return write_result(kept, result, error);
}

typedef struct {
    uint64_t bytes, records;
} measures;

static void measure(void *context, const char *name, uint64_t bytes) {
    measures *m = context;
    m->bytes += bytes;
    if (strcmp(name, records_name) == 0)
        m->records = bytes / sizeof(packed);
}

void ek_kept_measure(const ek_platform *platform, const ek_session_id *id, uint64_t *bytes, uint64_t *records) {
    measures m = {0, 0};
    ek_path folder;
    ek_error unused;
    ek_kept_path(platform, id, "", &folder);
    (void)platform->list(folder.text, measure, &m, &unused); /* gone meanwhile: nothing */
    ek_kept_path(platform, id, ek_kept_spool, &folder);
    (void)platform->list(folder.text, measure, &m, &unused);
    *bytes = m.bytes;
    *records = m.records;
}

/* The request goes first: with it the session is gone as a whole. What a cut leaves of the folder is found by its lack of one. */
ek_status ek_kept_remove(const ek_platform *platform, const ek_session_id *id, ek_error *error) {
    static const char *const files[] = {request_name, ek_kept_spool, result_name, fetched_name, ek_kept_checkpoint, records_name, ""};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        ek_path path;
        ek_kept_path(platform, id, files[i], &path);
        if (platform->remove(path.text, error) != EK_OK)
            return error->status;
    }
    return EK_OK;
}

/* ---- all of them ---- */

typedef struct {
    const ek_platform *platform;
    ek_kept_name *names; /* sorted */
    size_t count, room;
} listing;

static void count_name(void *context, const char *name, uint64_t bytes) {
    listing *l = context;
    (void)name, (void)bytes;
    l->room++;
}

static void add_name(void *context, const char *name, uint64_t bytes) {
    listing *l = context;
    ek_kept_name next;
    ek_path path;
    ek_error unused;
    head h;
    size_t got;
    (void)bytes;
    if (l->count == l->room || !ek_session_id_valid(name, strlen(name)))
        return;
    snprintf(next.id.text, sizeof next.id.text, "%s", name);
    ek_kept_path(l->platform, &next.id, request_name, &path);
    if (l->platform->read_at(path.text, 0, &h, sizeof h, &got, &unused) != EK_OK || got != sizeof h ||
        memcmp(h.magic, magic, sizeof magic) != 0)
        return;
    next.number = h.number;
    size_t at = l->count++;
    for (; at > 0 && l->names[at - 1].number > next.number; at--)
        l->names[at] = l->names[at - 1];
    l->names[at] = next;
}

ek_status ek_kept_list(const ek_platform *platform, ek_kept_name **names, size_t *count, ek_error *error) {
    listing l = {.platform = platform};
    ek_path folder;
    *names = NULL;
    *count = 0;
    sessions_folder(platform, &folder);
    if (platform->list(folder.text, count_name, &l, error) != EK_OK)
        return error->status == EK_NOT_FOUND ? EK_OK : error->status;
    if (l.room == 0)
        return EK_OK;
    l.names = platform->allocate(l.room * sizeof *l.names);
    if (!l.names)
        return ek_fail(error, EK_NO_MEMORY, "no memory for a list of %zu sessions", l.room);
    if (platform->list(folder.text, add_name, &l, error) != EK_OK) {
        platform->release(l.names);
        return error->status;
    }
    *names = l.names;
    *count = l.count;
    return EK_OK;
}
