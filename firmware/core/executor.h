/* Runs the entries of a verified Program with one backend's kernels. Everything is allocated by ek_executor_load, nothing after it. */
#ifndef EK_EXECUTOR_H
#define EK_EXECUTOR_H

#include "kernel.h"

/* Called after every op; the runner serves its link here. */
typedef void ek_poll(void *context);

/* Times of one op, summed over its runs. */
typedef struct {
    uint64_t runs, ns;
} ek_op_time;

typedef struct {
    ek_program program;
    const ek_backend *backend;
    ek_pool *pool;
    uint8_t *arena, *state, *scratch, *prepared, *end; /* the parts of its memory, in this order */
    size_t scratch_bytes, prepared_bytes;
    const void **packed;     /* one an op: what was prepared for it, or NULL; NULL where nothing was for any */
    ek_op_time *times;       /* one an op while profiling, else NULL */
    uint64_t (*clock)(void); /* monotonic ns */
    ek_poll *poll;           /* may be NULL */
    void *poll_context;
    uint64_t update_ns;      /* time spent in sgd_update ops since the caller last set it to 0 */
} ek_executor;

/* Bytes to allocate for a program on a backend: all of it in one block of 64-byte alignment. */
ek_status ek_executor_size(const ek_program *program, const ek_backend *backend, int threads, size_t *bytes, ek_error *error);

/* Lay the executor out in `memory` (ek_executor_size bytes), set the state to its first contents, pack the constants.
 * UNSUPPORTED_OP where the backend lacks a kernel. `program`'s bytes must stay mapped. */
ek_status ek_executor_load(ek_executor *executor, const ek_program *program, const ek_backend *backend, ek_pool *pool,
                           void *memory, ek_error *error);

/* Copy bytes of a mapped file to the beginning of the state, in parts that are forgotten: they are not in memory twice. */
void ek_executor_fill(ek_executor *executor, const uint8_t *from, size_t bytes);

/* Set the state to the program's own first contents. */
void ek_executor_reset(ek_executor *executor);

/* Address of a tensor. */
void *ek_executor_data(const ek_executor *executor, uint32_t tensor);

/* Run an entry once. Its input ports must have been filled. */
void ek_executor_run(ek_executor *executor, const ek_entry *entry);

#endif
