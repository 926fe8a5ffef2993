/* Tests of the core that need C: core_test SECTION [PROGRAM.ekp]. Prints what fails; the exit code counts it. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor.h"
#include "pool_posix.h"
#include "sha256.h"

static int failures;

#define CHECK(condition) ((condition) ? (void)0 : (void)(failures++, printf("%s:%d: %s\n", __FILE__, __LINE__, #condition)))

static void hex(const uint8_t *digest, char *text)
{
    for (int i = 0; i < 32; i++)
        sprintf(text + 2 * i, "%02x", digest[i]);
}

/* FIPS 180-4 examples, that pieces make the whole, and that this processor's instructions say what the plain way says. */
static void test_sha256(void)
{
    uint8_t whole[32], pieces[32], data[300];
    char text[65];
    ek_sha256_of("abc", 3, whole);
    hex(whole, text);
    CHECK(strcmp(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0);
    ek_sha256_of("", 0, whole);
    hex(whole, text);
    CHECK(strcmp(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") == 0);
    for (int i = 0; i < 300; i++)
        data[i] = (uint8_t)(i * 37);
    for (size_t size = 0; size <= sizeof data; size++) {
        ek_sha256 sha;
        ek_sha256_of(data, size, whole);
        ek_sha256_start(&sha);
        for (size_t at = 0, step = 1; at < size; at += step, step = step * 3 % 71)
            ek_sha256_add(&sha, data + at, step < size - at ? step : size - at);
        ek_sha256_finish(&sha, pieces);
        CHECK(memcmp(whole, pieces, 32) == 0);
        ek_sha256_start(&sha);
        sha.mix = ek_sha256_mix_plain;
        ek_sha256_add(&sha, data, size);
        ek_sha256_finish(&sha, pieces);
        CHECK(memcmp(whole, pieces, 32) == 0);
    }
}

typedef struct {
    atomic_int runs[EK_MAX_THREADS];
    int count, sum; /* sum is written by the parts one after the other: rounds must not overlap */
} pool_record;

static void record_part(void *context, int index, int count)
{
    pool_record *record = context;
    atomic_fetch_add(&record->runs[index], 1);
    if (index == count - 1)
        record->count = count;
    if (index == 0)
        record->sum++;
}

static void test_pool(void)
{
    for (int threads = 1; threads <= 4; threads++) {
        pool_record record = {0};
        ek_pool *pool = ek_pool_create(threads);
        CHECK(ek_pool_threads(pool) == threads);
        for (int round = 1; round <= 300; round++) {
            ek_pool_run(pool, record_part, &record);
            for (int i = 0; i < threads; i++)
                CHECK(record.runs[i] == round);
            CHECK(record.count == threads && record.sum == round);
        }
        ek_pool_destroy(pool);
    }
    pool_record record = {0};
    ek_pool_run(NULL, record_part, &record);
    CHECK(ek_pool_threads(NULL) == 1 && record.runs[0] == 1 && record.count == 1);
    CHECK(ek_pool_create(0) == NULL && ek_pool_create(EK_MAX_THREADS + 1) == NULL);
    ek_pool_destroy(NULL);
}

/* A backend that writes down what the executor asks it. */
static struct {
    int scratch_asked, prepared, ran, polled, threads;
    const void *x; /* the last linear op's operand */
    uint64_t clock;
} seen;

static size_t linear_scratch(const ek_call *call, int threads)
{
    seen.scratch_asked++;
    seen.threads = threads;
    return call->in[EK_LINEAR_X] ? 1 : 1000; /* operands that are no constants have no address yet */
}

static size_t linear_prepared(const ek_call *call)
{
    int constant = call->in_t[EK_LINEAR_BIAS]->storage == EK_CONSTANT;
    CHECK(constant && call->in[EK_LINEAR_BIAS] && !call->in[EK_LINEAR_W] && !call->out[0]);
    return call->in_t[EK_LINEAR_BIAS]->bytes;
}

static void linear_prepare(const ek_call *call, void *to)
{
    seen.prepared++;
    CHECK(call->in[EK_LINEAR_X] && call->out[0] && (uintptr_t)to % EK_ALIGN == 0);
    memcpy(to, call->in[EK_LINEAR_BIAS], call->in_t[EK_LINEAR_BIAS]->bytes);
}

static void linear_run(const ek_call *call)
{
    seen.ran++;
    seen.x = call->in[EK_LINEAR_X];
    CHECK(memcmp(call->prepared, call->in[EK_LINEAR_BIAS], call->in_t[EK_LINEAR_BIAS]->bytes) == 0);
    memset(call->scratch, 1, 1000);
}

static void other_run(const ek_call *call)
{
    (void)call;
    seen.ran++;
}

static int yes(void) { return 1; }

static const ek_kernel linear = {linear_scratch, linear_prepared, linear_prepare, linear_run};
static const ek_kernel other = {.run = other_run};
static const ek_kernel *kernels[EK_OPCODES];
static const ek_backend fake = {"fake", yes, kernels, NULL};
const ek_backend *const ek_backends[] = {&fake, NULL};

static uint64_t ticking(void) { return seen.clock += 10; }

static void poll(void *context)
{
    CHECK(context == &seen);
    seen.polled++;
}

static void *read_program(const char *path, size_t *size)
{
    void *bytes = NULL;
    FILE *file = fopen(path, "rb");
    CHECK(file && posix_memalign(&bytes, EK_ALIGN, 1 << 20) == 0);
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void test_executor(const char *path)
{
    ek_error error;
    ek_program program;
    ek_executor executor;
    size_t size, bytes;
    void *file = read_program(path, &size), *memory = NULL;
    CHECK(ek_program_open(&program, file, size, &error) == EK_OK);
    CHECK(ek_program_check_batch(&program, &error) == EK_OK);

    CHECK(ek_executor_size(&program, &fake, 2, &bytes, &error) == EK_UNSUPPORTED_OP);
    CHECK(strstr(error.text, "no kernel") != NULL);
    for (int i = 0; i < EK_OPCODES; i++)
        kernels[i] = &other;
    kernels[EK_OP_LINEAR] = &linear;
    CHECK(ek_executor_size(&program, &fake, 2, &bytes, &error) == EK_OK);
    CHECK(seen.threads == 2 && seen.scratch_asked == 3);
    CHECK(posix_memalign(&memory, EK_ALIGN, bytes) == 0);

    CHECK(ek_executor_load(&executor, &program, &fake, NULL, memory, &error) == EK_OK);
    CHECK(executor.scratch_bytes == 1000 && seen.threads == 1);
    CHECK(seen.prepared == 1); /* once for training, evaluation and prediction */
    uint8_t *end = (uint8_t *)memory + bytes;
    CHECK(executor.arena >= (uint8_t *)memory && executor.end <= end);

    /* The state starts as the file says, then as zeros; so it is after a reset. */
    size_t state = program.header->state_bytes, init = program.header->state_init_bytes;
    CHECK(init > 0 && init < state);
    for (int again = 0; again < 2; again++) {
        CHECK(memcmp(executor.state, program.state_init, init) == 0);
        for (size_t i = init; i < state; i++)
            CHECK(executor.state[i] == 0);
        memset(executor.state, 0xff, state);
        ek_executor_reset(&executor);
    }

    ek_op_time *times = calloc(program.header->ops, sizeof *times);
    executor.clock = ticking;
    executor.poll = poll;
    executor.poll_context = &seen;
    const ek_entry *entry = ek_program_entry(&program, EK_TRAIN_STEP);
    ek_executor_run(&executor, entry);
    CHECK(seen.ran == (int)entry->ops && seen.polled == seen.ran);
    CHECK(executor.update_ns == 10);
    executor.times = times;
    ek_executor_run(&executor, entry);
    for (uint32_t i = 0; i < program.header->ops; i++) {
        uint64_t runs = i >= entry->first_op && i < entry->first_op + entry->ops;
        CHECK(times[i].runs == runs && times[i].ns == 10 * runs);
    }
    CHECK(executor.update_ns == 20);

    /* Tensors lie where their storage says. */
    const ek_port *x = ek_entry_port(&program, entry, EK_PORT_INPUT, 0);
    CHECK(x && seen.x == ek_executor_data(&executor, x->tensor));
    CHECK(ek_executor_data(&executor, x->tensor) == executor.arena + program.tensors[x->tensor].offset);
    CHECK(ek_entry_port(&program, entry, EK_PORT_INPUT, 1) == NULL && ek_program_entry(&program, EK_UPDATE) == NULL);
    free(times);
    free(memory);
    free(file);
}

/* Sizes that no address space holds, and a batch that is not the ports'. */
static void test_limits(const char *path)
{
    ek_error error;
    ek_program program;
    size_t size, bytes;
    uint8_t *file = read_program(path, &size);
    CHECK(ek_program_open(&program, file, size, &error) == EK_OK);
    for (int i = 0; i < EK_OPCODES; i++)
        kernels[i] = &other;
    ek_header *header = (ek_header *)(void *)file;
    header->arena_bytes = UINT64_MAX;
    CHECK(ek_executor_size(&program, &fake, 1, &bytes, &error) == EK_NO_MEMORY);
    header->arena_bytes = UINT64_MAX / 2 + 1;
    header->state_bytes = UINT64_MAX / 2 + 1;
    CHECK(ek_executor_size(&program, &fake, 1, &bytes, &error) == EK_NO_MEMORY);
    header->batch++;
    CHECK(ek_program_check_batch(&program, &error) == EK_BAD_PROGRAM && strstr(error.text, "batch"));
    free(file);
}

static void test_error(void)
{
    ek_error error;
    CHECK(ek_fail(&error, EK_IO, "%s %d", "sector", 7) == EK_IO && error.status == EK_IO);
    CHECK(strcmp(error.text, "sector 7") == 0);
    ek_fail(&error, EK_IO, "%1000d", 1);
    CHECK(strlen(error.text) == sizeof error.text - 1);
}

int main(int count, char **words)
{
    const char *section = count > 1 ? words[1] : "";
    if (strcmp(section, "sha256") == 0)
        test_sha256();
    else if (strcmp(section, "pool") == 0)
        test_pool();
    else if (strcmp(section, "error") == 0)
        test_error();
    else if (strcmp(section, "executor") == 0 && count == 3)
        test_executor(words[2]);
    else if (strcmp(section, "limits") == 0 && count == 3)
        test_limits(words[2]);
    else
        return 2;
    return failures > 0;
}
