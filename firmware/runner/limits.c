/* Measures the limits that kernels are judged by, on all threads of the runner's own pool: multiply-adds a second, and bytes a
 * second for data of several sizes, since what fits a cache is read faster. The best of many tries counts, each shorter than a turn of the
 * system's scheduler: a limit is what can be reached, and others may be at work on the board. */
#include "limits.h"

#include <string.h>

#include "fields.h"

enum { TRIES = 32 };
static const size_t SMALLEST = 256 << 10, LARGEST = 64 << 20; /* bytes of data: SMALLEST, twice that, … */
static const size_t TRAFFIC = 16 << 20;                       /* bytes to move in one try, or all once */
static const uint64_t LONG_ENOUGH = 1000000;                  /* ns */

typedef struct {
    const ek_limits *limits;
    uint64_t rounds, operations; /* of each thread */
    float *from, *to;            /* to == NULL: only read */
    size_t floats, times;
} job;

static void multiply(void *context, int index, int count) {
    job *work = context;
    float sum = 0.5f;
    uint64_t operations = work->limits->multiply(work->rounds, &sum);
    if (index == 0)
        work->operations = operations * (uint64_t)count;
}

static void move(void *context, int index, int count) {
    const job *work = context;
    size_t share = work->floats / (size_t)count, at = share * (size_t)index;
    float sum;
    for (size_t i = 0; i < work->times; i++) {
        if (work->to)
            work->limits->copy(work->to + at, work->from + at, share);
        else
            work->limits->read(work->from + at, share, &sum);
    }
}

static uint64_t timed(const ek_training *t, ek_work *work, job *context) {
    uint64_t start = t->platform->clock();
    ek_pool_run(t->pool, work, context);
    uint64_t ns = t->platform->clock() - start;
    return ns ? ns : 1;
}

static uint64_t a_second(uint64_t n, uint64_t ns) { return (uint64_t)((double)n * 1e9 / (double)ns); }

static uint64_t operations_a_second(const ek_training *t) {
    job work = {.limits = t->backend->limits, .rounds = 1 << 12};
    uint64_t best = 0;
    while (timed(t, multiply, &work) < LONG_ENOUGH)
        work.rounds *= 2;
    for (int i = 0; i < TRIES; i++) {
        uint64_t ns = timed(t, multiply, &work), speed = a_second(work.operations, ns);
        best = speed > best ? speed : best;
    }
    return best;
}

/* Reading `bytes`, or copying half of them to the other half: whichever is faster. */
static uint64_t bytes_a_second(const ek_training *t, float *memory, size_t bytes) {
    uint64_t best = 0, traffic = t->platform->memory_limit ? bytes : TRAFFIC;
    for (int copies = 0; copies < 2; copies++) {
        job work = {.limits = t->backend->limits, .from = memory, .floats = bytes / sizeof(float), .times = bytes < traffic ? traffic / bytes : 1};
        if (copies)
            work.floats /= 2, work.to = memory + work.floats;
        work.floats -= work.floats % (64 * (size_t)ek_pool_threads(t->pool)); /* shares of whole vectors and cache lines */
        for (int i = 0; i < TRIES; i++) {
            uint64_t ns = timed(t, move, &work), speed = a_second(work.times * bytes, ns);
            best = speed > best ? speed : best;
        }
    }
    return best;
}

ek_status ek_limits_measure(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    const ek_training *t = context;
    size_t largest = t->platform->memory_limit ? SMALLEST : LARGEST; /* a microcontroller has neither large caches nor the time */
    (void)request;
    if (ek_training_runs(t))
        return ek_training_busy(t, error);
    if (!t->backend || !t->backend->limits)
        return ek_fail(error, EK_UNSUPPORTED_OP, "this runner has no kernels to measure");
    float *memory = t->platform->allocate(largest);
    while (!memory && t->platform->memory_limit && largest > SMALLEST / 16)
        memory = t->platform->allocate(largest /= 2);
    if (!memory)
        return ek_fail(error, EK_NO_MEMORY, "measuring the board's limits takes %zu bytes of memory", largest);
    memset(memory, 0, largest);
    ek_cbor_write_map(to, 2);
    ek_put_uint(to, "flops", operations_a_second(t));
    ek_cbor_write_text(to, "bandwidth");
    size_t smallest = largest < SMALLEST ? largest : SMALLEST, sizes = 0;
    for (size_t bytes = smallest; bytes <= largest; bytes *= 2)
        sizes++;
    ek_cbor_write_array(to, sizes);
    for (size_t bytes = smallest; bytes <= largest; bytes *= 2) {
        ek_cbor_write_array(to, 2);
        ek_cbor_write_uint(to, bytes);
        ek_cbor_write_uint(to, bytes_a_second(t, memory, bytes));
    }
    t->platform->release(memory);
    return EK_OK;
}
