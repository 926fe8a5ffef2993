#include "checkpoint.h"

#include <string.h>

#include "../core/sha256.h"

enum { VERSION = 1, DIGEST_FROM = 56, PART = 1 << 18 };

typedef struct {
    uint8_t magic[8];
    uint32_t version, zero;
    uint64_t file_bytes;
    uint8_t sha256[32];
    uint8_t program[32];
    uint64_t step, seed;
    uint32_t epoch, batches;
    uint64_t state_bytes;
    uint8_t pad[8]; /* the state starts on a multiple of 64 */
} layout;

_Static_assert(offsetof(layout, program) == DIGEST_FROM && sizeof(layout) == 128, "docs/protocol.md");

static const uint8_t magic[8] = {0x89, 'E', 'K', 'C', '\r', '\n', 0x1A, '\n'};

/* SHA-256 of what follows the digest in the file. Parts of a mapped state are forgotten, so that it is not in memory as a whole. */
static void digest(const layout *head, const uint8_t *state, void (*forget)(const void *, size_t), uint8_t to[32]) {
    ek_sha256 hash;
    ek_sha256_start(&hash);
    ek_sha256_add(&hash, (const uint8_t *)head + DIGEST_FROM, sizeof *head - DIGEST_FROM);
    for (size_t at = 0, part; at < head->state_bytes; at += part) {
        part = head->state_bytes - at < PART ? head->state_bytes - at : PART;
        ek_sha256_add(&hash, state + at, part);
        if (forget)
            forget(state, at + part); /* from the start: a page fault may have brought pages before it back */
    }
    ek_sha256_finish(&hash, to);
}

ek_status ek_checkpoint_save(const ek_platform *platform, const char *path, const ek_executor *executor,
                             const ek_position *position, uint64_t *bytes, ek_error *error) {
    const ek_header *program = executor->program.header;
    layout head = {.version = VERSION, .step = position->step, .seed = position->seed, .epoch = position->epoch,
                   .batches = position->batches, .state_bytes = program->state_bytes,
                   .file_bytes = sizeof head + program->state_bytes};
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.program, program->sha256, sizeof head.program);
    digest(&head, executor->state, NULL, head.sha256);

    ek_new_file file;
    if (platform->create(&file, path, head.file_bytes, error) != EK_OK)
        return error->status;
    if (platform->write(&file, &head, sizeof head, error) != EK_OK ||
        platform->write(&file, executor->state, head.state_bytes, error) != EK_OK) {
        platform->abandon(&file);
        return error->status;
    }
    *bytes = head.file_bytes;
    return platform->commit(&file, error);
}

bool ek_checkpoint_step(const ek_platform *platform, const char *path, uint64_t *step) {
    layout head;
    ek_error unused;
    size_t got;
    if (platform->read_at(path, 0, &head, sizeof head, &got, &unused) != EK_OK || got != sizeof head ||
        memcmp(head.magic, magic, sizeof magic) != 0 || head.version != VERSION)
        return false;
    *step = head.step;
    return true;
}

static ek_status verify(const char *path, const ek_executor *executor, const ek_file *file, layout *head, ek_error *error) {
    const ek_header *program = executor->program.header;
    if (file->size < sizeof *head || memcmp(file->bytes, magic, sizeof magic) != 0)
        return ek_fail(error, EK_BAD_CHECKPOINT, "%.160s is no checkpoint", path);
    memcpy(head, file->bytes, sizeof *head);
    if (head->version != VERSION || head->zero)
        return ek_fail(error, EK_BAD_CHECKPOINT, "%.160s has version %u, known is %d", path, head->version, VERSION);
    if (head->file_bytes != file->size || head->state_bytes != file->size - sizeof *head)
        return ek_fail(error, EK_BAD_CHECKPOINT, "%.160s is cut or was changed: its size is wrong", path);
    uint8_t found[32];
    digest(head, file->bytes + sizeof *head, executor->program.forget, found);
    if (memcmp(found, head->sha256, sizeof found) != 0)
        return ek_fail(error, EK_BAD_CHECKPOINT, "%.160s was changed: its digest is wrong", path);
    if (memcmp(head->program, program->sha256, sizeof head->program) != 0 || head->state_bytes != program->state_bytes)
        return ek_fail(error, EK_BAD_CHECKPOINT, "%.160s belongs to another program", path);
    return EK_OK;
}

ek_status ek_checkpoint_open(const ek_platform *platform, const char *path, const ek_executor *executor, ek_file *file,
                             ek_position *position, ek_error *error) {
    layout head;
    if (platform->map(path, file, error) != EK_OK)
        return error->status;
    if (verify(path, executor, file, &head, error) != EK_OK) {
        platform->unmap(file);
        return error->status;
    }
    *position = (ek_position){head.step, head.seed, head.epoch, head.batches};
    return EK_OK;
}

void ek_checkpoint_apply(const ek_file *file, ek_executor *executor) {
    ek_executor_fill(executor, file->bytes + sizeof(layout), (size_t)executor->program.header->state_bytes);
}
