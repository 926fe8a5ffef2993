/* A fuzz target (LLVM's interface): whatever the bytes are, opening them as a Program and running it must not step outside its memory.
 *
 *     python -m tests.firmware.corpus seeds && mkdir -p corpus
 *     $(python -m edgekit.firmware.build fuzz_program x86_64-linux-fuzz) -max_len=8192 corpus seeds
 *
 * build.py's "fuzz_program" for x86_64-linux-fuzz is the libFuzzer executable; it is compiled with EK_FUZZING, which skips the digest.
 * "verify" runs the same function on given Programs. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "executor.h"
#include "pool_posix.h"

#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

/* What runs must be small, so that an input takes milliseconds. */
enum { MAX_MEMORY = 16 << 20, MAX_TENSOR_BYTES = 8 << 10, MAX_OPS = 32, THREADS = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *allocate(size_t bytes)
{
    void *memory = NULL;
    return posix_memalign(&memory, EK_ALIGN, bytes > 0 ? bytes : 1) == 0 ? memory : NULL;
}

static int is_small(const ek_program *program)
{
    const ek_header *h = program->header;
    for (uint32_t i = 0; i < h->tensors; i++)
        if (program->tensors[i].bytes > MAX_TENSOR_BYTES)
            return 0;
    return h->ops <= MAX_OPS;
}

static const ek_backend *last_backend(void)
{
    int i = 0;
    while (ek_backends[i + 1])
        i++;
    return ek_backends[i];
}

/* Let the sanitizer catch steps past tensors too, not only past the whole memory: what no tensor covers may not be touched. */
static void fence_tensors(const ek_executor *executor)
{
    const ek_header *h = executor->program.header;
    ASAN_POISON_MEMORY_REGION(executor->arena, h->arena_bytes);
    ASAN_POISON_MEMORY_REGION(executor->state, h->state_bytes);
    for (uint32_t i = 0; i < h->tensors; i++)
        ASAN_UNPOISON_MEMORY_REGION(ek_executor_data(executor, i), executor->program.tensors[i].bytes);
}

static void run_entries(const ek_program *program, ek_pool *pool)
{
    ek_executor executor;
    ek_error error;
    size_t bytes;
    if (ek_executor_size(program, last_backend(), ek_pool_threads(pool), &bytes, &error) != EK_OK || bytes > MAX_MEMORY)
        return;
    void *memory = allocate(bytes);
    if (!memory)
        return;
    memset(memory, 0, bytes);
    if (ek_executor_load(&executor, program, last_backend(), pool, memory, &error) == EK_OK) {
        fence_tensors(&executor);
        for (uint32_t i = 0; i < program->header->entries; i++)
            ek_executor_run(&executor, &program->entries[i]);
        ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ek_pool *pool; /* one for all inputs: starting threads would take most of the time */
    ek_program program;
    ek_error error;
    if (!pool)
        pool = ek_pool_create(THREADS);
    uint8_t *bytes = allocate(size);
    if (!bytes)
        return 0;
    memcpy(bytes, data, size);
    if (ek_program_open(&program, bytes, size, &error) == EK_OK && is_small(&program)) {
        run_entries(&program, NULL);
        run_entries(&program, pool);
    }
    free(bytes);
    return 0;
}
