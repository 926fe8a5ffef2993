/* The runner of this process: platform, program, training, threads. Who serves it (serve.c, host.c) brings the links. */
#ifndef EK_RUNNER_H
#define EK_RUNNER_H

#include "../runner/training.h"
#include "options.h"

typedef struct {
    ek_platform platform;
    ek_path home, executable;
    ek_pool *pool;
    ek_training training;
    ek_smp_group group;
    ek_smp_server server;
} ek_runner;

/* This system, without a home. */
ek_platform ek_posix_platform(void);

/* The best backend that this processor can run, or the one with the name; NULL where there is none, which is said on stderr. */
const ek_backend *ek_backend_choose(const char *isa);

/* The pool that the options ask for, or NULL. */
ek_pool *ek_pool_open(const ek_options *options);

/* `runner` starts zeroed; `home` is NULL where nothing is kept. `poll` is called between two ops. Signals must have been set.
 * 0, or the exit code, the cause having been said on stderr. */
int ek_runner_open(ek_runner *runner, const ek_options *options, const ek_path *home, ek_poll *poll, void *context);

/* Whether a signal or `reset` asked the process to end. */
bool ek_runner_ends(const ek_runner *runner);

/* End the session that runs as `stop` does: with its checkpoint, without half-written files. Not within a step. */
void ek_runner_stop(ek_runner *runner);

void ek_runner_close(ek_runner *runner);

/* "edgekit-runner 0.1.0 x86_64", the instruction sets. */
void ek_runner_print_version(void);

#endif
