/* The command line of edgekit-runner. */
#ifndef EK_OPTIONS_H
#define EK_OPTIONS_H

#include <stdint.h>

enum { EK_EXIT_FAILED = 1, EK_EXIT_USAGE = 2, EK_EXIT_NO_HOST = 3, EK_EXIT_NO_ANSWER = 4, EK_EXIT_LOCKED = 5, EK_EXIT_STOPPED = 6 };

typedef struct {
    const char *word;    /* "serve", "attach" … */
    const char *isa;     /* NULL: the best one */
    const char *home;    /* NULL: $EDGEKIT_HOME, or ~/.edgekit */
    int threads;         /* 0: one a core */
    int idle;            /* seconds after which a host that nobody needs ends */
    const char *file;    /* of `receive` */
    uint64_t file_bytes;
} ek_options;

/* 0, or the exit code, the mistake having been said on stderr. */
int ek_options_parse(ek_options *options, int argc, char **argv);

#endif
