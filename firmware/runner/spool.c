#include "spool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../core/sha256.h"

/* A shard's first bytes. Its arrays follow as whole .npy files, in the order of the entry's ports, each at a multiple of ALIGNED. */
typedef struct {
    uint8_t magic[8];
    uint64_t number;
    uint8_t digest[EK_DIGEST]; /* of the data set */
    uint32_t samples, arrays;
    uint64_t bytes[EK_MAX_SOURCES];
    uint8_t zero[8];
} head;

enum { ALIGNED = 64 };

_Static_assert(sizeof(head) == 192, "docs/protocol.md");

static const uint8_t magic[8] = {'E', 'K', 'S', 'H', 'A', 'R', 'D', '1'};

void ek_spool_begin(ek_spool *p, const ek_platform *platform, const ek_stream *stream, bool own, uint64_t step, uint64_t per_step,
                    uint64_t limit) {
    *p = (ek_spool){.platform = platform, .stream = *stream, .own = own, .per_step = per_step, .limit = limit};
    if (!ek_spool_used(p))
        return;
    uint64_t steps = (limit + per_step - 1) / per_step;
    p->first = step / stream->steps;
    p->total = (steps + stream->steps - 1) / stream->steps;
}

bool ek_spool_used(const ek_spool *p) { return p->stream.samples > 0; }

static ek_file *slot(ek_spool *p, uint64_t number) { return &p->shards[number % EK_SPOOL_AHEAD]; }

static bool is_here(const ek_spool *p, uint64_t number) { return p->shards[number % EK_SPOOL_AHEAD].bytes != NULL; }

bool ek_spool_ready(const ek_spool *p) { return !ek_spool_used(p) || is_here(p, p->first); }

uint64_t ek_spool_until(const ek_spool *p) {
    uint64_t left = p->total > p->first ? p->total - p->first : 0;
    return p->first + (left < p->stream.ahead ? left : p->stream.ahead);
}

uint64_t ek_spool_wanted(const ek_spool *p) {
    uint64_t number = p->first, until = ek_spool_until(p);
    while (number < until && is_here(p, number))
        number++;
    return number;
}

static uint64_t first_sample(const ek_spool *p, uint64_t number) { return number * p->stream.steps * p->per_step; }

static uint64_t samples_of(const ek_spool *p, uint64_t number) {
    uint64_t begin = first_sample(p, number), end = first_sample(p, number + 1);
    return (end < p->limit ? end : p->limit) - begin;
}

uint64_t ek_spool_row(const ek_spool *p, uint64_t sample) {
    return ek_spool_used(p) ? sample - first_sample(p, p->first) : sample;
}

static ek_status file_path(const ek_spool *p, uint64_t number, const char *end, ek_path *to, ek_error *error) {
    int length = snprintf(to->text, sizeof to->text, "%s/%" PRIu64 "%s", p->stream.folder.text, number, end);
    return length < (int)sizeof to->text ? EK_OK : ek_fail(error, EK_BAD_REQUEST, "the spool's path is too long");
}

static ek_status remove_file(const ek_spool *p, uint64_t number, const char *end, ek_error *error) {
    ek_path path;
    return file_path(p, number, end, &path, error) == EK_OK ? p->platform->remove(path.text, error) : error->status;
}

/* ---- one shard's file ---- */

/* Where each array's .npy file lies. */
static ek_status find_arrays(const ek_file *file, const head *h, ek_file *parts, ek_error *error) {
    uint64_t at = sizeof *h;
    for (uint32_t i = 0; i < h->arrays; i++) {
        if (at > file->size || h->bytes[i] > file->size - at)
            return ek_fail(error, EK_BAD_DATA, "shard %" PRIu64 ": array %" PRIu32 " reaches past its end", h->number, i);
        parts[i] = (ek_file){file->bytes + at, (size_t)h->bytes[i]};
        at += (h->bytes[i] + ALIGNED - 1) / ALIGNED * ALIGNED;
    }
    return EK_OK;
}

/* `data` gets the shard's arrays, checked as a data set's are. */
static ek_status open_arrays(const ek_spool *p, uint64_t number, const ek_file *file, ek_dataset *data, ek_error *error) {
    ek_file parts[EK_MAX_SOURCES];
    head h;
    if (file->size < sizeof h)
        return ek_fail(error, EK_BAD_DATA, "shard %" PRIu64 " is cut off in its head", number);
    memcpy(&h, file->bytes, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.arrays != data->count)
        return ek_fail(error, EK_BAD_DATA, "shard %" PRIu64 " is none, or has not %" PRIu32 " arrays", number, data->count);
    if (h.number != number || memcmp(h.digest, p->stream.digest, sizeof h.digest) != 0)
        return ek_fail(error, EK_BAD_DATA, "shard %" PRIu64 " is another one, or of another data set", number);
    if (find_arrays(file, &h, parts, error) != EK_OK || ek_dataset_show(data, parts, error) != EK_OK)
        return error->status;
    if (data->samples != samples_of(p, number) || h.samples != data->samples)
        return ek_fail(error, EK_BAD_DATA, "shard %" PRIu64 " has %" PRIu32 " samples and says %" PRIu32 ", %" PRIu64 " belong into it",
                       number, data->samples, h.samples, samples_of(p, number));
    return EK_OK;
}

static ek_status verify(const ek_spool *p, uint64_t number, uint64_t bytes, const uint8_t *sha256, const ek_file *file,
                        const ek_dataset *data, ek_error *error) {
    ek_dataset trial = *data;
    ek_sha256 hash;
    uint8_t found[EK_DIGEST];
    if (file->size != bytes)
        return ek_fail(error, EK_BAD_DIGEST, "shard %" PRIu64 " has %zu bytes here, %" PRIu64 " were sent", number, file->size, bytes);
    ek_sha256_start(&hash);
    ek_sha256_add(&hash, file->bytes, file->size);
    ek_sha256_finish(&hash, found);
    if (memcmp(found, sha256, sizeof found) != 0)
        return ek_fail(error, EK_BAD_DIGEST, "shard %" PRIu64 " was changed on its way: its digest is wrong", number);
    return open_arrays(p, number, file, &trial, error);
}

/* ---- all of them ---- */

ek_status ek_spool_take(ek_spool *p, uint64_t number, uint64_t bytes, const uint8_t sha256[EK_DIGEST], const ek_dataset *data,
                        ek_error *error) {
    ek_path path;
    ek_file file;
    if (number < p->first) /* brought twice, and late */
        return remove_file(p, number, "", error);
    if (number >= ek_spool_until(p))
        return ek_fail(error, EK_BAD_REQUEST, "there is no room for shard %" PRIu64 " yet, only below %" PRIu64, number,
                       ek_spool_until(p));
    if (is_here(p, number))
        return EK_OK;
    if (file_path(p, number, "", &path, error) != EK_OK || p->platform->map(path.text, &file, error) != EK_OK)
        return error->status;
    if (verify(p, number, bytes, sha256, &file, data, error) != EK_OK) {
        ek_error unused;
        p->platform->unmap(&file);
        (void)remove_file(p, number, "", &unused);
        return error->status;
    }
    *slot(p, number) = file;
    return EK_OK;
}

ek_status ek_spool_show(ek_spool *p, ek_dataset *data, ek_error *error) {
    if (p->shown || !ek_spool_used(p))
        return EK_OK;
    p->shown = open_arrays(p, p->first, slot(p, p->first), data, error) == EK_OK;
    return p->shown ? EK_OK : error->status;
}

/* The shard, and what another host may have begun to bring of it once more. */
static ek_status drop(ek_spool *p, uint64_t number, ek_error *error) {
    if (is_here(p, number))
        p->platform->unmap(slot(p, number));
    ek_status status = remove_file(p, number, ".part", error);
    return remove_file(p, number, "", error) == EK_OK ? status : error->status;
}

ek_status ek_spool_release(ek_spool *p, uint64_t step, ek_error *error) {
    while (ek_spool_used(p) && p->first < p->total && p->first < step / p->stream.steps) {
        p->shown = false;
        if (drop(p, p->first++, error) != EK_OK)
            return error->status;
    }
    return EK_OK;
}

void ek_spool_close(ek_spool *p) {
    ek_error unused;
    if (!ek_spool_used(p))
        return;
    for (uint64_t until = ek_spool_until(p); p->first < until; p->first++)
        (void)drop(p, p->first, &unused); /* what stays takes room, and harms nothing else */
    if (p->own)
        (void)p->platform->remove(p->stream.folder.text, &unused);
    p->stream.samples = 0;
}
