/* A fuzz target (LLVM's interface): whatever a shard holds, taking it must not read outside of it, and what is taken has all the
 * samples that belong into it, with labels in range. The digest is always right: it is no secret. */
#include <stdlib.h>
#include <string.h>

#include "../core/sha256.h"
#include "../runner/spool.h"

enum { SAMPLES = 4, FEATURES = 3, CLASSES = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *content; /* of the only file that there is */
static size_t content_bytes;

static ek_status map_file(const char *path, ek_file *file, ek_error *error)
{
    if (!content)
        return ek_fail(error, EK_NOT_FOUND, "cannot open %.160s", path);
    *file = (ek_file){content, content_bytes};
    return EK_OK;
}

static void unmap_file(ek_file *file) { *file = (ek_file){NULL, 0}; }

static ek_status remove_file(const char *path, ek_error *error)
{
    (void)path, (void)error;
    return EK_OK;
}

static const ek_platform platform = {.map = map_file, .unmap = unmap_file, .remove = remove_file};
static const ek_tensor inputs = {.dtype = EK_F32, .rank = 2, .dim = {SAMPLES, FEATURES}};
static const ek_tensor targets = {.dtype = EK_I32, .rank = 1, .dim = {SAMPLES}};
static const ek_port input_port = {.role = EK_PORT_INPUT}, target_port = {.role = EK_PORT_TARGET, .high = CLASSES, .ignore = -100};

/* As ek_dataset_bind leaves it. */
static ek_dataset bound(void)
{
    ek_dataset d = {.platform = &platform, .batch = SAMPLES, .count = 2};
    d.sources[0] = (ek_source){.name = "inputs.npy", .port = &input_port, .tensor = &inputs, .sample_items = FEATURES};
    d.sources[1] = (ek_source){.name = "targets.npy", .port = &target_port, .tensor = &targets, .sample_items = 1};
    return d;
}

static void read_all(const ek_source *s)
{
    unsigned sum = 0;
    for (size_t i = 0; i < SAMPLES * s->sample_items * s->array.item_bytes; i++)
        sum += s->array.data[i];
    __asm__ volatile("" : : "r"(sum)); /* the reads must not be optimised away */
}

static void take(uint8_t *file, size_t size)
{
    ek_stream stream = {.samples = 2 * SAMPLES, .steps = 1, .ahead = 2, .folder = {"/spool"}};
    ek_dataset data = bound();
    ek_spool spool;
    ek_error error;
    ek_sha256 hash;
    uint8_t digest[EK_DIGEST];
    ek_sha256_start(&hash);
    ek_sha256_add(&hash, file, size);
    ek_sha256_finish(&hash, digest);
    content = file;
    content_bytes = size;
    ek_spool_begin(&spool, &platform, &stream, true, 0, SAMPLES, 2 * SAMPLES);
    if (ek_spool_take(&spool, 0, size, digest, &data, &error) == EK_OK) {
        if (!ek_spool_ready(&spool) || ek_spool_show(&spool, &data, &error) != EK_OK || data.samples != SAMPLES)
            abort();
        read_all(&data.sources[0]);
        read_all(&data.sources[1]);
        if (ek_spool_release(&spool, 1, &error) != EK_OK || ek_spool_ready(&spool))
            abort();
    } else if (ek_spool_wanted(&spool) != 0) {
        abort();
    }
    ek_spool_close(&spool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = malloc(size ? size : 1); /* exactly as long, so that a sanitizer sees a read past it */
    memcpy(file, data, size);
    take(file, size);
    free(file);
    return 0;
}
