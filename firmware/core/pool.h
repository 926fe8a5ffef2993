/* Threads that share one piece of work at a time, in parts that do not depend on which thread does which, so that results are the same
 * from run to run. */
#ifndef EK_POOL_H
#define EK_POOL_H

typedef struct ek_pool ek_pool;

/* One part of the work: part `index` of `count`. */
typedef void ek_work(void *context, int index, int count);

/* Number of threads, the caller's included. A NULL pool is one thread. */
int ek_pool_threads(const ek_pool *pool);

/* Run `work` once for each index 0 … threads - 1, on as many threads as are free, and return when all are done. */
void ek_pool_run(ek_pool *pool, ek_work *work, void *context);

#endif
