/* One thread. */
#include "../core/pool.h"

int ek_pool_threads(const ek_pool *pool) {
    (void)pool;
    return 1;
}

void ek_pool_run(ek_pool *pool, ek_work *work, void *context) {
    (void)pool;
    work(context, 0, 1);
}
