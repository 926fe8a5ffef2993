/* Threads that live as long as the pool. Kernels follow each other within microseconds, so who waits spins a little before it
 * sleeps; a pool with more threads than free cores still works, since the spin is short. A worker that has not come to its part when
 * the caller is done with its own, because it sleeps yet or its core has other processes to run, finds that the caller did it. */
#include "pool_posix.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Turns of the wait loop before sleeping: some tens of microseconds, several times what a futex wake-up takes. */
enum { SPINS = 4096 };

typedef struct {
    ek_pool *pool;
    int index;
    atomic_uint claimed; /* the last round whose part `index` someone began */
    pthread_t thread;
} worker;

struct ek_pool {
    int threads;
    ek_work *work;
    void *context;
    atomic_uint round;   /* grows with each piece of work */
    atomic_int running;  /* parts of this round that are not finished, without the caller's */
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t started, finished;
    worker workers[];    /* threads - 1 */
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

/* The next round that this worker sees, maybe not the one after `seen`. */
static unsigned wait_for_round(ek_pool *pool, unsigned seen)
{
    unsigned round;
    for (int i = 0; i < SPINS; i++) {
        if ((round = atomic_load_explicit(&pool->round, memory_order_acquire)) != seen)
            return round;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while ((round = atomic_load(&pool->round)) == seen)
        pthread_cond_wait(&pool->started, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return round;
}

/* Whether the caller of this does the worker's part of a round. A round does not end before all its parts, so `round` is the running
 * one where this is true. */
static bool claim(worker *w, unsigned round)
{
    unsigned before = atomic_load(&w->claimed);
    return (int)(round - before) > 0 && atomic_compare_exchange_strong(&w->claimed, &before, round);
}

static void wait_for_workers(ek_pool *pool)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->running, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->running) != 0)
        pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

/* The lock orders the new round before a sleeper's test of it, so that no wake-up is lost. */
static void start_round(ek_pool *pool)
{
    atomic_store(&pool->running, pool->threads - 1);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->round, 1);
    pthread_cond_broadcast(&pool->started);
    pthread_mutex_unlock(&pool->lock);
}

static void *work_loop(void *argument)
{
    worker *self = argument;
    ek_pool *pool = self->pool;
    for (unsigned round = 0;;) {
        round = wait_for_round(pool, round);
        if (atomic_load(&pool->stop))
            return NULL;
        if (!claim(self, round))
            continue;
        pool->work(pool->context, self->index, pool->threads);
        if (atomic_fetch_sub(&pool->running, 1) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

int ek_pool_threads(const ek_pool *pool)
{
    return pool ? pool->threads : 1;
}

void ek_pool_run(ek_pool *pool, ek_work *work, void *context)
{
    if (ek_pool_threads(pool) == 1) {
        work(context, 0, 1);
        return;
    }
    pool->work = work;
    pool->context = context;
    start_round(pool);
    work(context, 0, pool->threads);
    unsigned round = atomic_load(&pool->round);
    for (int i = 1; i < pool->threads; i++) {
        if (!claim(&pool->workers[i - 1], round))
            continue;
        work(context, i, pool->threads);
        atomic_fetch_sub(&pool->running, 1);
    }
    wait_for_workers(pool);
}

/* End and free a pool of which the first `count` workers were started. */
static void end(ek_pool *pool, int count)
{
    atomic_store(&pool->stop, true);
    start_round(pool);
    for (int i = 0; i < count; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->started);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

ek_pool *ek_pool_create(int threads)
{
    if (threads < 1 || threads > EK_MAX_THREADS)
        return NULL;
    ek_pool *pool = calloc(1, sizeof *pool + (size_t)(threads - 1) * sizeof(worker));
    if (!pool)
        return NULL;
    pool->threads = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->started, NULL);
    pthread_cond_init(&pool->finished, NULL);
    for (int i = 0; i < threads - 1; i++) {
        pool->workers[i].pool = pool, pool->workers[i].index = i + 1;
        if (pthread_create(&pool->workers[i].thread, NULL, work_loop, &pool->workers[i]) != 0) {
            end(pool, i);
            return NULL;
        }
    }
    return pool;
}

void ek_pool_destroy(ek_pool *pool)
{
    if (pool)
        end(pool, pool->threads - 1);
}
