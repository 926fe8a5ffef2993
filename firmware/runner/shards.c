#include "shards.h"

#include "fields.h"

/* The session that runs, named or not, if its data comes as shards. */
static ek_status find_session(ek_training *t, const ek_cbor *request, ek_error *error) {
    ek_session_id id;
    ek_session *s = &t->session;
    if (ek_read_session(request, false, &id, error) != EK_OK)
        return error->status;
    if (ek_training_runs(t) && ek_spool_used(&s->spool) && (!id.text[0] || ek_session_id_equal(&id, &s->kept.id)))
        return EK_OK;
    return ek_fail(error, EK_NO_SESSION, "no session%s%s runs whose data comes as shards", id.text[0] ? " " : "", id.text);
}

/* All that tells which samples go into which shard. */
static void answer(const ek_session *s, ek_cbor_writer *to) {
    const ek_spool *spool = &s->spool;
    const ek_stream *stream = &spool->stream;
    ek_cbor_write_map(to, 11);
    ek_put_uint(to, "first", spool->first);
    ek_put_uint(to, "wanted", ek_spool_wanted(spool));
    ek_put_uint(to, "until", ek_spool_until(spool));
    ek_put_uint(to, "total", spool->total);
    ek_put_uint(to, "steps", stream->steps);
    ek_put_uint(to, "samples", stream->samples);
    ek_put_uint(to, "limit", spool->limit);
    ek_put_uint(to, "seed", s->position.seed);
    ek_cbor_write_text(to, "shuffle");
    ek_cbor_write_bool(to, s->shuffle);
    ek_cbor_write_text(to, "digest");
    ek_cbor_write_bytes(to, stream->digest, sizeof stream->digest);
    ek_put_text(to, "folder", stream->folder.text);
}

/* With "number": a shard lies in its place. */
static ek_status take_brought(ek_session *s, const ek_cbor *request, ek_error *error) {
    ek_cbor item;
    uint64_t number = 0, bytes = 0;
    uint8_t sha256[EK_DIGEST];
    if (!ek_cbor_find(request, "number", &item))
        return EK_OK;
    if (ek_read_uint(request, "number", true, UINT64_MAX, &number, error) != EK_OK ||
        ek_read_uint(request, "bytes", true, UINT64_MAX, &bytes, error) != EK_OK ||
        ek_read_bytes(request, "sha", sha256, sizeof sha256, error) != EK_OK)
        return error->status;
    return ek_spool_take(&s->spool, number, bytes, sha256, &s->data, error);
}

ek_status ek_shards(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    if (find_session(t, request, error) != EK_OK || take_brought(&t->session, request, error) != EK_OK)
        return error->status;
    answer(&t->session, to);
    return EK_OK;
}
