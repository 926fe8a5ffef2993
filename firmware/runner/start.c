#include "start.h"

#include <string.h>

#include "fields.h"

#define EK_EVERY_NS 30000000000u /* between the checkpoints of a kept training that does not say */

static ek_status read_kind(const ek_cbor *map, uint32_t *kind, ek_error *error) {
    static const struct {
        const char *name;
        uint32_t kind;
    } kinds[] = {{"train", EK_TRAIN_STEP}, {"evaluate", EK_EVALUATE}, {"predict", EK_PREDICT}};
    ek_path word;
    if (ek_read_path(map, "kind", true, &word, error) != EK_OK)
        return error->status;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(word.text, kinds[i].name) == 0) {
            *kind = kinds[i].kind;
            return EK_OK;
        }
    return ek_fail(error, EK_BAD_REQUEST, "\"kind\" is %.40s, not train, evaluate or predict", word.text);
}

/* "stream": the data set comes as shards. A kept training has a folder of its own for them. */
static ek_status read_stream(const ek_cbor *map, bool kept, ek_stream *to, ek_error *error) {
    enum { MOST_STEPS = 1 << 20 };
    ek_cbor stream;
    uint64_t samples = 0, steps = 0, ahead = 0;
    if (!ek_cbor_find(map, "stream", &stream))
        return EK_OK;
    if (ek_read_uint(&stream, "samples", true, INT32_MAX, &samples, error) != EK_OK ||
        ek_read_uint(&stream, "steps", true, MOST_STEPS, &steps, error) != EK_OK ||
        ek_read_uint(&stream, "ahead", true, EK_SPOOL_AHEAD, &ahead, error) != EK_OK ||
        ek_read_bytes(&stream, "digest", to->digest, sizeof to->digest, error) != EK_OK ||
        ek_read_path(&stream, "folder", !kept, &to->folder, error) != EK_OK)
        return error->status;
    if (samples == 0 || steps == 0 || ahead < 2 || (kept && to->folder.text[0]))
        return ek_fail(error, EK_BAD_REQUEST, "\"stream\" needs samples, steps, and at least 2 ahead; its folder is a kept session's own");
    to->samples = (uint32_t)samples;
    to->steps = (uint32_t)steps;
    to->ahead = (uint32_t)ahead;
    return EK_OK;
}

/* "cache": keep what the frozen prefix makes. A kept training has a place of its own for it. */
static ek_status read_cache(const ek_cbor *map, bool kept, ek_cache_request *to, ek_error *error) {
    ek_cbor cache;
    ek_path storage;
    if (!ek_cbor_find(map, "cache", &cache))
        return EK_OK;
    if (ek_read_path(&cache, "storage", true, &storage, error) != EK_OK ||
        ek_read_uint(&cache, "budget", false, UINT64_MAX, &to->budget, error) != EK_OK ||
        ek_read_path(&cache, "path", !kept, &to->path, error) != EK_OK)
        return error->status;
    to->storage = ek_cache_storage(storage.text);
    if (!to->storage || (kept && to->path.text[0]))
        return ek_fail(error, EK_BAD_REQUEST, "\"cache\" has a storage of float32, float16 or int8; its path is a kept session's own");
    return EK_OK;
}

/* A kept training must be able to begin again after a cut, with nothing but its request. */
static ek_status check_kept(ek_session_request *r, ek_error *error) {
    if (r->kind != EK_TRAIN_STEP || r->checkpoint.text[0])
        return ek_fail(error, EK_BAD_REQUEST, "\"session\" goes with train, and has a checkpoint of its own");
    r->reset |= !r->resume.text[0] && !r->state.text[0];
    r->every_ns = r->every ? 0 : EK_EVERY_NS;
    r->kept.streams = r->stream.samples;
    return EK_OK;
}

ek_status ek_start_read(const ek_cbor *map, ek_session_request *r, ek_error *error) {
    uint64_t epochs = 0, seed = 0;
    memset(r, 0, sizeof *r);
    if (read_kind(map, &r->kind, error) != EK_OK)
        return error->status;
    bool train = r->kind == EK_TRAIN_STEP;
    if (ek_read_session(map, false, &r->kept.id, error) != EK_OK ||
        ek_read_path(map, "program", r->kept.id.text[0], &r->program, error) != EK_OK ||
        read_stream(map, r->kept.id.text[0], &r->stream, error) != EK_OK ||
        read_cache(map, r->kept.id.text[0], &r->cache, error) != EK_OK ||
        ek_read_path(map, "data", !r->stream.samples, &r->data, error) != EK_OK ||
        ek_read_path(map, "resume", false, &r->resume, error) != EK_OK ||
        ek_read_path(map, "state", false, &r->state, error) != EK_OK ||
        ek_read_path(map, "checkpoint", false, &r->checkpoint, error) != EK_OK ||
        ek_read_path(map, "out", r->kind == EK_PREDICT, &r->out, error) != EK_OK ||
        ek_read_uint(map, "epochs", train, UINT32_MAX, &epochs, error) != EK_OK ||
        ek_read_uint(map, "seed", train, UINT32_MAX, &seed, error) != EK_OK ||
        ek_read_uint(map, "every", false, UINT64_MAX, &r->every, error) != EK_OK ||
        ek_read_uint(map, "steps", false, UINT64_MAX, &r->steps, error) != EK_OK ||
        ek_read_uint(map, "token", false, UINT64_MAX, &r->token, error) != EK_OK ||
        ek_read_bool(map, "shuffle", train, &r->shuffle, error) != EK_OK ||
        ek_read_bool(map, "reset", false, &r->reset, error) != EK_OK ||
        ek_read_bool(map, "profile", false, &r->profile, error) != EK_OK)
        return error->status;
    r->epochs = (uint32_t)epochs;
    r->seed = (uint32_t)seed;
    if (r->cache.storage && !train)
        return ek_fail(error, EK_BAD_REQUEST, "\"cache\" goes with train");
    if (train && epochs == 0)
        return ek_fail(error, EK_BAD_REQUEST, "\"epochs\" is 0");
    if (r->resume.text[0] && (!train || r->state.text[0]))
        return ek_fail(error, EK_BAD_REQUEST, "\"resume\" goes with train, and not with \"state\"");
    return r->kept.id.text[0] ? check_kept(r, error) : EK_OK;
}
