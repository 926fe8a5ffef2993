/* Runs the heavy CPU kernels of one instruction set on cases from stdin, for tests and benchmarks without a Program.
 *
 * A case: u32 opcode, threads, repeats, alias (0, or 1 + the input that output 0 overwrites); u32 attrs[13];
 * 8 inputs, each u32 present and then an ek_tensor and its bytes; 4 outputs, each u32 present and then an ek_tensor.
 * An answer on stdout: u64 shortest ns, u64 scratch bytes, then each output's bytes.
 * Operands end at an unreadable page and the scratch at a pattern, so that a kernel that leaves its bounds is caught.
  * */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../backends/cpu/simd.h"
#include "../../firmware/core/kernel.h"

extern const ek_kernel EK_NAME(ek_kernel_linear), EK_NAME(ek_kernel_linear_input_grad),
        EK_NAME(ek_kernel_linear_weight_grad);
extern const ek_kernel EK_NAME(ek_kernel_conv2d), EK_NAME(ek_kernel_conv2d_input_grad),
        EK_NAME(ek_kernel_conv2d_weight_grad);

static const ek_kernel *kernel_of(uint32_t opcode) {
    switch (opcode) {
    case EK_OP_LINEAR: return &EK_NAME(ek_kernel_linear);
    case EK_OP_LINEAR_INPUT_GRAD: return &EK_NAME(ek_kernel_linear_input_grad);
    case EK_OP_LINEAR_WEIGHT_GRAD: return &EK_NAME(ek_kernel_linear_weight_grad);
    case EK_OP_CONV2D: return &EK_NAME(ek_kernel_conv2d);
    case EK_OP_CONV2D_INPUT_GRAD: return &EK_NAME(ek_kernel_conv2d_input_grad);
    case EK_OP_CONV2D_WEIGHT_GRAD: return &EK_NAME(ek_kernel_conv2d_weight_grad);
    default: fprintf(stderr, "driver: no kernel for opcode %u\n", opcode); exit(2);
    }
}

/* A pool of its own, so that the driver needs nothing but the kernels: threads that spin a while, then give way. */
enum { MOST_THREADS = 8 };
struct ek_pool {
    int threads;
    ek_work *work;
    void *context;
    unsigned round, done;
    uint64_t part[MOST_THREADS]; /* processor time of each thread's part of this round */
    uint64_t mark, spent;        /* where the caller's own time stood last; time of the rounds so far and between them */
};

static uint64_t own_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run_part(ek_pool *pool, int index) {
    uint64_t start = own_time();
    pool->work(pool->context, index, pool->threads);
    pool->part[index] = own_time() - start;
}

typedef struct {
    ek_pool *pool;
    int index;
} worker;

static void wait_a_little(unsigned *spins) {
    if (++*spins > 10000) sched_yield();
}

static void *serve(void *argument) {
    worker self = *(worker *)argument;
    for (unsigned round = 1;; round++) {
        for (unsigned spins = 0; __atomic_load_n(&self.pool->round, __ATOMIC_ACQUIRE) < round;) wait_a_little(&spins);
        if (!self.pool->work) return NULL;
        run_part(self.pool, self.index);
        __atomic_fetch_add(&self.pool->done, 1, __ATOMIC_RELEASE);
    }
}

int ek_pool_threads(const ek_pool *pool) { return pool ? pool->threads : 1; }

void ek_pool_run(ek_pool *pool, ek_work *work, void *context) {
    if (!pool || pool->threads == 1) {
        work(context, 0, 1);
        return;
    }
    pool->work = work, pool->context = context, pool->done = 0, pool->spent += own_time() - pool->mark;
    __atomic_fetch_add(&pool->round, 1, __ATOMIC_RELEASE);
    run_part(pool, 0);
    for (unsigned spins = 0; __atomic_load_n(&pool->done, __ATOMIC_ACQUIRE)
            + 1 < (unsigned)pool->threads;) wait_a_little(&spins);
    uint64_t longest = 0;
    for (int i = 0; i < pool->threads; i++) longest = pool->part[i] > longest ? pool->part[i] : longest;
    pool->spent += longest, pool->mark = own_time();
}

static void take(void *to, size_t bytes) {
    if (bytes && fread(to, 1, bytes, stdin) != bytes) fprintf(stderr, "driver: input ends early\n"), exit(2);
}

static void give(const void *from, size_t bytes) {
    if (bytes && fwrite(from, 1, bytes, stdout) != bytes) fprintf(stderr, "driver: cannot write\n"), exit(2);
}

static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* `bytes`, 64-byte aligned, filled with 0xFF (NaN), followed within 63 bytes by a page that cannot be touched. In huge
 * pages where the kernel has them, as the runner's arena of a large program is. */
static void *guarded(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = round_up(bytes, page) + page;
    uint8_t *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + size - page, page, PROT_NONE)) perror("driver"), exit(2);
    (void)madvise(base, size - page, MADV_HUGEPAGE);
    memset(base, 0xFF, size - page);
    return base + size - page - round_up(bytes, 64);
}

static void release(void *data, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = round_up(bytes, page) + page;
    if (data) munmap((uint8_t *)data + round_up(bytes, 64) + page - size, size);
}

typedef struct {
    uint32_t opcode, threads, repeats, alias, attrs[EK_ATTR_WORDS];
} request;

static void run_case(const request *r) {
    ek_tensor in[EK_MAX_IN], out[EK_MAX_OUT];
    ek_call call = {.attrs = r->attrs};
    uint32_t present;
    for (int i = 0; i < EK_MAX_IN; i++) {
        take(&present, sizeof present);
        if (!present) continue;
        take(&in[i], sizeof in[i]);
        call.in_t[i] = &in[i], call.in[i] = guarded(in[i].bytes);
        take(call.in[i], in[i].bytes);
    }
    for (int i = 0; i < EK_MAX_OUT; i++) {
        take(&present, sizeof present);
        if (!present) continue;
        take(&out[i], sizeof out[i]);
        call.out_t[i] = &out[i], call.out[i] = i == 0 && r->alias ? call.in[r->alias - 1] : guarded(out[i].bytes);
    }

    ek_pool pool = {.threads = (int)r->threads};
    pthread_t threads[MOST_THREADS];
    worker workers[MOST_THREADS];
    for (int i = 1; i < pool.threads; i++) {
        workers[i] = (worker){&pool, i};
        pthread_create(&threads[i], NULL, serve, &workers[i]);
    }
    const ek_kernel *kernel = kernel_of(r->opcode);
    size_t scratch = kernel->scratch_bytes ? kernel->scratch_bytes(&call, pool.threads) : 0;
    size_t prepared = kernel->prepared_bytes ? kernel->prepared_bytes(&call) : 0;
    void *own = prepared ? guarded(prepared) : NULL;
    call.pool = &pool, call.scratch = guarded(scratch), call.prepared = own;
    if (prepared) kernel->prepare(&call, own);

    uint64_t best = UINT64_MAX;
    for (uint32_t i = 0; i < r->repeats; i++) {
        /* By the threads' own processor time, the longest part of each round: other processes' turns do not count, nor
         * does waking a thread. */
        pool.spent = 0, pool.mark = own_time();
        kernel->run(&call);
        uint64_t took = pool.spent + own_time() - pool.mark;
        if (took < best) best = took;
    }
    pool.work = NULL;
    __atomic_fetch_add(&pool.round, 1, __ATOMIC_RELEASE);
    for (int i = 1; i < pool.threads; i++) pthread_join(threads[i], NULL);

    uint64_t answer[2] = {best, scratch};
    give(answer, sizeof answer);
    for (int i = 0; i < EK_MAX_OUT; i++) {
        if (!call.out[i]) continue;
        give(call.out[i], out[i].bytes);
        if (i > 0 || !r->alias) release(call.out[i], out[i].bytes);
    }
    for (int i = 0; i < EK_MAX_IN; i++)
        if (call.in[i]) release(call.in[i], in[i].bytes);
    release(call.scratch, scratch);
    release(own, prepared);
    fflush(stdout);
}

int main(void) {
    request r;
    while (fread(&r, sizeof r, 1, stdin) == 1) run_case(&r);
    return 0;
}
