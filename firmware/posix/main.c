/* edgekit-runner: serves docs/protocol.md on stdin and stdout. Only messages go to stdout; what is for people goes to stderr. */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../core/kernel.h"
#include "board.h"
#include "files.h"
#include "link.h"
#include "pool_posix.h"

enum { EXIT_USAGE = 2, EXIT_FAILED = 1, POLL_NS = 100000 };

static const char usage[] = "usage: edgekit-runner [--threads N] [--isa NAME] [serve]\n"
                            "       edgekit-runner version\n";

static volatile sig_atomic_t asked_to_end; /* the only global that changes: a signal handler has no other way to speak */

static void on_signal(int number) {
    (void)number;
    asked_to_end = 1;
}

/* A mapped file was cut short while in use: nothing can be computed from it any more. */
static void on_bus_error(int number) {
    static const char text[] = "edgekit-runner: a mapped file became shorter, or the disk failed (SIGBUS)\n";
    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(EXIT_FAILED);
    _exit(EXIT_FAILED);
}

static void handle(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

/* Before the pool's threads exist, so that they inherit the mask and the main thread gets the signals. */
static void set_signals(void) {
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGHUP);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    handle(SIGTERM, on_signal);
    handle(SIGHUP, on_signal);
    handle(SIGBUS, on_bus_error);
    handle(SIGPIPE, SIG_IGN); /* write() says so */
    handle(SIGXFSZ, SIG_IGN); /* write() says so: EFBIG */
    if (!isatty(STDIN_FILENO))
        handle(SIGINT, SIG_IGN); /* Ctrl-C reaches the host's whole process group; the host then stops the session cleanly */
}

typedef struct {
    int threads;
    const char *isa;
    bool version;
} options;

static int usage_error(const char *what, const char *word) {
    fprintf(stderr, "edgekit-runner: %s %s\n%s", what, word, usage);
    return EXIT_USAGE;
}

/* 0, or the exit code. */
static int parse(options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        bool valued = strcmp(argv[i], "--threads") == 0 || strcmp(argv[i], "--isa") == 0;
        if (valued && i + 1 == argc)
            return usage_error("no value after", argv[i]);
        if (strcmp(argv[i], "--threads") == 0) {
            char *end;
            long n = strtol(argv[++i], &end, 10);
            if (*end || n < 1 || n > EK_MAX_THREADS)
                return usage_error("the number of threads must be 1 to 256, not", argv[i]);
            o->threads = (int)n;
        } else if (strcmp(argv[i], "--isa") == 0) {
            o->isa = argv[++i];
        } else if (strcmp(argv[i], "version") == 0) {
            o->version = true;
        } else if (strcmp(argv[i], "serve") != 0) {
            return usage_error("unknown word", argv[i]);
        }
    }
    return 0;
}

/* The best backend that this processor can run, or the one with the name. */
static const ek_backend *choose_backend(const char *isa) {
    for (int i = 0; ek_backends[i]; i++)
        if ((!isa || strcmp(isa, ek_backends[i]->name) == 0) && (!ek_backends[i]->usable || ek_backends[i]->usable()))
            return ek_backends[i];
    return NULL;
}

static void list_backends(FILE *to) {
    for (int i = 0; ek_backends[i]; i++)
        fprintf(to, " %s%s", ek_backends[i]->name,
                !ek_backends[i]->usable || ek_backends[i]->usable() ? "" : " (not on this processor)");
    fputc('\n', to);
}

enum { HUGE_PAGE = 2 << 20, LARGE = 32 << 20 };

/* Where the kernel offers huge pages on request, a large block asks: kernels that walk the arena then miss the TLB less.
 * A small one does not: up to a huge page at each end of what it touches would be memory that nothing uses. */
static void *allocate(size_t bytes) {
    void *memory;
    int large = bytes >= LARGE;
    if (posix_memalign(&memory, large ? HUGE_PAGE : 64, bytes ? bytes : 1)) return NULL;
#ifdef MADV_HUGEPAGE
    if (large) (void)madvise(memory, bytes, MADV_HUGEPAGE); /* refused: ordinary pages do */
#endif
    return memory;
}

typedef struct {
    ek_platform platform;
    ek_training training;
    ek_smp_group group;
    ek_smp_server server;
    ek_link link;
    uint64_t polled;
} runner;

/* Between two ops. A look at the link is a system call, so a program of tiny ops looks less often. */
static void poll_link(void *context) {
    runner *r = context;
    uint64_t now = ek_board_clock();
    if (now - r->polled < POLL_NS || r->link.closed)
        return;
    ek_link_serve(&r->link, false);
    r->polled = now;
}

static void serve(runner *r) {
    ek_session *session = &r->training.session;
    while (!asked_to_end && !r->link.closed) {
        ek_link_serve(&r->link, session->state != EK_RUNNING);
        if (session->state == EK_RUNNING)
            ek_session_step(session);
    }
    if (session->state == EK_RUNNING) { /* ends as if stopped: with its checkpoint, without half-written files */
        session->stop_requested = true;
        ek_session_step(session);
    }
    if (session->state == EK_FAILED)
        fprintf(stderr, "edgekit-runner: %s\n", session->error.text);
}

/* Messages get a descriptor of their own; a stray print to stdout then lands on stderr. */
static int take_stdout(void) {
    int out = dup(STDOUT_FILENO);
    if (out >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return -1;
    return out;
}

int main(int argc, char **argv) {
    options o = {0};
    int code = parse(&o, argc, argv);
    if (code)
        return code;
    if (o.version) {
        printf("edgekit-runner %s %s\ninstruction sets:", ek_board_describe().version, ek_board_describe().architecture);
        list_backends(stdout);
        return 0;
    }
    const ek_backend *backend = choose_backend(o.isa);
    if (!backend) {
        fprintf(stderr, "edgekit-runner: no instruction set %s; there are:", o.isa ? o.isa : "of this build fits the processor");
        list_backends(stderr);
        return EXIT_USAGE;
    }
    set_signals();
    int threads = o.threads ? o.threads : ek_board_usable_cores();
    ek_pool *pool = ek_pool_create(threads < EK_MAX_THREADS ? threads : EK_MAX_THREADS);
    runner *r = calloc(1, sizeof *r);
    int out = take_stdout();
    if (!pool || !r || out < 0) {
        fprintf(stderr, "edgekit-runner: cannot start: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    r->platform = (ek_platform){
        .board = ek_board_describe(),
        .clock = ek_board_clock,
        .allocate = allocate,
        .release = free,
        .map = ek_file_map,
        .unmap = ek_file_unmap,
        .forget = ek_file_forget,
        .create = ek_file_create,
        .write = ek_file_write,
        .commit = ek_file_commit,
        .abandon = ek_file_abandon,
        .read_sensors = ek_board_read_sensors,
    };
    r->platform.board.isa = backend->name;
    r->platform.board.threads = (uint32_t)ek_pool_threads(pool);
    r->training.platform = &r->platform;
    r->training.backend = backend;
    r->training.pool = pool;
    r->training.poll = poll_link;
    r->training.poll_context = r;
    ek_training_init(&r->training);
    r->group = (ek_smp_group){EK_TRAINING_GROUP, ek_training_commands, &r->training};
    r->server = (ek_smp_server){&r->group, 1, EK_LINK_BUFFER};
    r->link.in = STDIN_FILENO;
    r->link.out = out;
    r->link.server = &r->server;
    r->link.training = &r->training;
    serve(r);
    ek_training_close(&r->training);
    ek_pool_destroy(pool);
    free(r);
    return 0;
}
