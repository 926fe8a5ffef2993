#include "cache.h"

#include <inttypes.h>
#include <string.h>

#include "fingerprint.h"
#include "narrow.h"

enum { VERSION = 1 };

typedef struct {
    uint8_t magic[8];
    uint32_t version, storage;
    uint64_t row_bytes;
    uint8_t program[32];
    uint64_t runner; /* fingerprint of its version and instruction set: others round otherwise */
} file_head;

typedef struct {
    uint64_t sample, source, payload; /* fingerprints of the sample's inputs, and of what follows */
    uint64_t check;                   /* of the three before */
} row_head;

_Static_assert(sizeof(file_head) == 64 && sizeof(row_head) == 32, "docs/protocol.md");

static const uint8_t magic[8] = {'E', 'K', 'C', 'A', 'C', 'H', 'E', '1'};

static const char *const words[] = {NULL, "float32", "float16", "int8"};

const char *ek_cache_word(uint32_t storage) { return words[storage]; }

uint32_t ek_cache_storage(const char *word) {
    for (uint32_t i = EK_CACHE_F32; i <= EK_CACHE_I8; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return EK_CACHE_OFF;
}

/* ---- rows ---- */

static uint8_t *row_of(const ek_cache *c, uint32_t slot) { return c->rows + (size_t)slot * c->row_bytes; }

static uint64_t place_of(const ek_cache *c, uint32_t row) { return sizeof(file_head) + (uint64_t)row * c->row_bytes; }

static uint64_t check_of(const ek_cache *c, const row_head *head) { return ek_fingerprint(c->seed, head, offsetof(row_head, check)); }

static uint64_t payload_of(const ek_cache *c, const uint8_t *row) {
    return ek_fingerprint(c->seed, row + sizeof(row_head), c->row_bytes - sizeof(row_head));
}

static uint64_t source_of(const ek_cache *c, uint32_t sample) {
    uint64_t found = c->seed;
    for (uint32_t i = 0; i < c->inputs.count; i++) {
        const ek_source *s = &c->inputs.sources[i];
        size_t bytes = s->sample_items * s->array.item_bytes;
        found = ek_fingerprint(found, s->array.data + (uint64_t)sample * bytes, bytes);
    }
    return found;
}

/* Whether the sample's row is in the file; then it is at its slot. One that does not fit the sample, or is damaged, counts as none. */
static bool read_row(ek_cache *c, uint32_t sample, uint32_t slot) {
    uint8_t *row = row_of(c, slot);
    row_head head;
    ek_error unused;
    size_t got;
    if (!c->places[sample] || c->platform->read_at(c->file.path.text, place_of(c, c->places[sample] - 1), row, c->row_bytes, &got,
                                                   &unused) != EK_OK || got != c->row_bytes)
        return false;
    memcpy(&head, row, sizeof head);
    if (!c->trusted[sample] && (head.check != check_of(c, &head) || head.payload != payload_of(c, row) ||
                                head.source != source_of(c, sample)))
        return false;
    c->trusted[sample] = true;
    return true;
}

static void forget(ek_cache *c, uint32_t sample) {
    c->known -= c->places[sample] != 0;
    c->places[sample] = 0;
    c->trusted[sample] = false;
}

/* A file that cannot be written any more is only read from then on. */
static void append_row(ek_cache *c, uint32_t sample, uint32_t slot) {
    uint32_t number = (uint32_t)((c->file.bytes - sizeof(file_head)) / c->row_bytes);
    row_head head = {.sample = sample, .source = source_of(c, sample), .payload = payload_of(c, row_of(c, slot))};
    head.check = check_of(c, &head);
    memcpy(row_of(c, slot), &head, sizeof head);
    c->stores = c->platform->append(&c->file, row_of(c, slot), c->row_bytes, &c->why) == EK_OK;
    if (!c->stores)
        return;
    c->places[sample] = number + 1;
    c->trusted[sample] = true;
    c->known++;
}

/* ---- what is between a row and the arena ---- */

/* Of a sample in the arena. */
static size_t plain_bytes(const ek_cache *c, uint32_t tensor) {
    return (size_t)c->executor->program.tensors[tensor].bytes / c->inputs.batch;
}

static uint8_t *slot_of(const ek_cache *c, uint32_t tensor, uint32_t slot) {
    return (uint8_t *)ek_executor_data(c->executor, tensor) + slot * plain_bytes(c, tensor);
}

static void encode(const ek_cache *c, uint32_t slot) {
    uint8_t *to = row_of(c, slot) + sizeof(row_head);
    for (uint32_t i = 0; i < c->count; i++) {
        const ek_cache_array *a = &c->arrays[i];
        const uint8_t *from = slot_of(c, a->made, slot);
        if (a->storage == EK_CACHE_F16)
            ek_half_from_float((uint16_t *)(void *)to, (const float *)(const void *)from, a->rows * a->columns);
        else if (a->storage == EK_CACHE_I8)
            ek_byte_from_float(to, (const float *)(const void *)from, a->rows, a->columns);
        else
            memcpy(to, from, plain_bytes(c, a->cached));
        to += a->bytes;
    }
}

static void decode(const ek_cache *c, uint32_t slot) {
    const uint8_t *from = row_of(c, slot) + sizeof(row_head);
    for (uint32_t i = 0; i < c->count; i++) {
        const ek_cache_array *a = &c->arrays[i];
        uint8_t *to = slot_of(c, a->cached, slot);
        if (a->storage == EK_CACHE_F16)
            ek_half_to_float((float *)(void *)to, (const uint16_t *)(const void *)from, a->rows * a->columns);
        else if (a->storage == EK_CACHE_I8)
            ek_byte_to_float((float *)(void *)to, from, a->rows, a->columns);
        else
            memcpy(to, from, plain_bytes(c, a->cached));
        from += a->bytes;
    }
}

/* ---- a batch ---- */

ek_status ek_cache_load(ek_cache *c, const uint32_t *pick, ek_error *error) {
    c->whole = true;
    for (uint32_t slot = 0; slot < c->inputs.batch; slot++)
        if (!read_row(c, pick[slot], slot)) {
            forget(c, pick[slot]);
            c->whole = false;
        }
    return c->whole ? EK_OK : ek_dataset_fill(&c->inputs, c->executor, pick, error);
}

ek_status ek_cache_fill(ek_cache *c, const uint32_t *pick, ek_error *error) {
    for (uint32_t slot = 0; slot < c->inputs.batch && !c->whole; slot++) {
        encode(c, slot);
        if (c->stores && !c->places[pick[slot]])
            append_row(c, pick[slot], slot);
    }
    for (uint32_t slot = 0; slot < c->inputs.batch; slot++)
        decode(c, slot);
    return c->rest.count ? ek_dataset_fill(&c->rest, c->executor, pick, error) : EK_OK;
}

ek_status ek_cache_check(ek_cache *c, const uint32_t *pick, ek_error *error) {
    if (ek_cache_load(c, pick, error) != EK_OK)
        return error->status;
    return c->rest.count ? ek_dataset_fill(&c->rest, c->executor, pick, error) : EK_OK;
}

/* ---- open ---- */

/* How a sample's part of an array is kept. In bytes each column, an image's channel, has a range of its own where it is long. */
static ek_cache_array describe(const ek_tensor *t, uint32_t batch, uint32_t storage) {
    enum { LONG = 16 };
    size_t bytes = (size_t)t->bytes / batch, items = bytes / sizeof(float), columns = t->dim[t->rank - 1];
    if (t->dtype != EK_F32 || storage == EK_CACHE_F32)
        return (ek_cache_array){.bytes = (bytes + 3) & ~(size_t)3};
    if (items / columns < LONG)
        columns = 1;
    ek_cache_array a = {.storage = storage, .rows = items / columns, .columns = columns};
    a.bytes = storage == EK_CACHE_F16 ? items * sizeof(uint16_t) : ek_byte_size(a.rows, a.columns);
    a.bytes = (a.bytes + 3) & ~(size_t)3;
    return a;
}

/* The boundary's arrays; false: the program has none that can be kept. */
static bool find_arrays(ek_cache *c, uint32_t storage) {
    const ek_program *program = &c->executor->program;
    uint32_t batch = program->header->batch;
    c->prefix = ek_program_entry(program, EK_PREFIX);
    c->suffix = ek_program_entry(program, EK_SUFFIX);
    if (!c->prefix || !c->suffix)
        return false;
    c->row_bytes = sizeof(row_head);
    for (uint32_t i = 0; i < c->suffix->ports; i++) {
        const ek_port *cached = &program->ports[c->suffix->first_port + i];
        if (cached->role != EK_PORT_CACHED)
            continue;
        if (c->count == EK_CACHE_ARRAYS)
            return false;
        const ek_port *made = ek_entry_port(program, c->prefix, EK_PORT_BOUNDARY, cached->index);
        ek_cache_array *a = &c->arrays[c->count++];
        *a = describe(&program->tensors[cached->tensor], batch, storage);
        a->made = made->tensor;
        a->cached = cached->tensor;
        c->row_bytes += a->bytes;
    }
    c->row_bytes = (c->row_bytes + EK_ALIGN - 1) / EK_ALIGN * EK_ALIGN;
    return true;
}

static ek_status open_data(ek_cache *c, const char *folder, ek_error *error) {
    const ek_program *program = &c->executor->program;
    if (ek_dataset_bind(&c->inputs, c->platform, program, c->prefix, error) != EK_OK ||
        ek_dataset_open(&c->inputs, folder, error) != EK_OK)
        return error->status;
    c->samples = c->inputs.samples;
    if (ek_dataset_bind(&c->rest, c->platform, program, c->suffix, error) != EK_OK) /* nothing but the boundary */
        return c->rest.count ? error->status : EK_OK;
    return ek_dataset_open(&c->rest, folder, error);
}

static ek_status allocate(ek_cache *c, ek_error *error) {
    const ek_platform *p = c->platform;
    size_t batch_bytes = (size_t)c->inputs.batch * c->row_bytes;
    c->places = p->allocate(c->samples * sizeof *c->places);
    c->trusted = p->allocate(c->samples * sizeof *c->trusted);
    c->rows = p->allocate(batch_bytes);
    if (!c->places || !c->trusted || !c->rows)
        return ek_fail(error, EK_NO_MEMORY, "no memory for %zu bytes of rows", batch_bytes);
    memset(c->places, 0, c->samples * sizeof *c->places);
    memset(c->trusted, 0, c->samples * sizeof *c->trusted);
    memset(c->rows, 0, batch_bytes); /* what pads a row is written too */
    return EK_OK;
}

static file_head head_of(const ek_cache *c) {
    const ek_board *board = &c->platform->board;
    const ek_header *program = c->executor->program.header;
    file_head head = {.version = VERSION, .storage = c->storage, .row_bytes = c->row_bytes};
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.program, program->sha256, sizeof head.program);
    head.runner = ek_fingerprint(ek_fingerprint(0, board->version, strlen(board->version)), board->isa, strlen(board->isa));
    return head;
}

/* The rows of a file that is there already; returns the bytes of it that are of use. */
static uint64_t find_rows(ek_cache *c, const char *path, const file_head *expected) {
    ek_file file;
    ek_error unused;
    uint32_t row = 0;
    if (c->platform->map(path, &file, &unused) != EK_OK)
        return 0;
    bool known = file.size >= sizeof *expected && memcmp(file.bytes, expected, sizeof *expected) == 0;
    while (known && row < UINT32_MAX - 1 && place_of(c, row + 1) <= file.size) {
        row_head head;
        memcpy(&head, file.bytes + place_of(c, row), sizeof head);
        if (head.check != check_of(c, &head))
            break;
        row++;
        if (head.sample < c->samples) {
            c->known += c->places[head.sample] == 0;
            c->places[head.sample] = row; /* a later one takes an earlier one's place */
        }
    }
    c->platform->unmap(&file);
    return known ? place_of(c, row) : 0;
}

/* A quarter of what is free where nothing else was said. What the file has already counts as free. */
static ek_status check_room(const ek_cache *c, uint64_t budget, ek_error *error) {
    uint64_t need = place_of(c, c->samples), free = 0;
    if (!c->platform->disk_free(c->file.path.text, &free))
        free = 0;
    free += c->file.bytes;
    uint64_t most = budget ? budget : free / 4;
    if (need > most)
        return ek_fail(error, EK_NO_SPACE, "it would take %" PRIu64 " bytes, %s is %" PRIu64, need,
                       budget ? "the budget" : "a quarter of the disk's free space", most);
    if (need > free)
        return ek_fail(error, EK_NO_SPACE, "it would take %" PRIu64 " bytes, the disk has %" PRIu64, need, free);
    return EK_OK;
}

static ek_status open_file(ek_cache *c, const ek_cache_request *request, ek_error *error) {
    file_head head = head_of(c);
    uint64_t keep = find_rows(c, request->path.text, &head);
    if (c->platform->open_append(&c->file, request->path.text, keep, error) != EK_OK)
        return error->status;
    if (check_room(c, request->budget, error) != EK_OK)
        return error->status;
    return keep ? EK_OK : c->platform->append(&c->file, &head, sizeof head, error);
}

static ek_status open_all(ek_cache *c, const char *folder, const ek_cache_request *request, ek_error *error) {
    if (!find_arrays(c, request->storage))
        return ek_fail(error, EK_BAD_REQUEST, "the program has no frozen prefix");
    if (open_data(c, folder, error) != EK_OK || allocate(c, error) != EK_OK)
        return error->status;
    return open_file(c, request, error);
}

ek_cache *ek_cache_open(const ek_platform *platform, ek_executor *executor, const char *folder, const ek_cache_request *request,
                        ek_error *why) {
    ek_cache *c = platform->allocate(sizeof *c);
    if (!c) {
        ek_fail(why, EK_NO_MEMORY, "no memory");
        return NULL;
    }
    *c = (ek_cache){.platform = platform, .executor = executor, .storage = request->storage, .stores = true, .file = {.handle = -1}};
    memcpy(&c->seed, executor->program.header->sha256, sizeof c->seed);
    if (open_all(c, folder, request, why) == EK_OK)
        return c;
    ek_cache_close(c, true);
    return NULL;
}

void ek_cache_close(ek_cache *c, bool remove) {
    ek_error unused;
    if (!c)
        return;
    const ek_platform *p = c->platform;
    bool opened = c->file.handle >= 0;
    if (opened)
        p->close(&c->file);
    if (opened && remove)
        (void)p->remove(c->file.path.text, &unused);
    ek_dataset_close(&c->inputs);
    ek_dataset_close(&c->rest);
    p->release(c->places);
    p->release(c->trusted);
    p->release(c->rows);
    p->release(c);
}
