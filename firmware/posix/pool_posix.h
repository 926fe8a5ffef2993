/* The pool of firmware/core/pool.h on POSIX threads. */
#ifndef EK_POOL_POSIX_H
#define EK_POOL_POSIX_H

#include "pool.h"

enum { EK_MAX_THREADS = 256 };

/* A pool of `threads` (the caller's included; 1 … EK_MAX_THREADS), or NULL where memory or threads run out. */
ek_pool *ek_pool_create(int threads);

/* End the threads. NULL is no pool. */
void ek_pool_destroy(ek_pool *pool);

#endif
