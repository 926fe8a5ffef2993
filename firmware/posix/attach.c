/* `attach`: a bridge from stdin and stdout to the home's host, which is started where none runs (docs/session-host.md). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "../runner/smp.h"
#include "board.h"
#include "home.h"
#include "log.h"
#include "words.h"

#define PATIENCE_NS 10000000000u /* for a host that accepts and answers */

enum { LOOK_MS = 1000 /* without an answer, until the host is looked at */, AGAIN_MS = 20, FD_MOST = 1024, TAIL_BYTES = 2000, BUFFER_BYTES = 65536 };

typedef struct {
    const ek_options *options;
    ek_path home;
    uint64_t until;
    pid_t child;        /* the host that was started here; 0: none */
    off_t log_bytes;    /* of run/log before that */
} attaching;

static int milliseconds_left(const attaching *a) {
    uint64_t now = ek_board_clock();
    return now >= a->until ? 0 : (int)((a->until - now) / 1000000 + 1);
}

/* ---- starting a host ---- */

/* A process session of its own, nothing of ours open but the log: it outlives this process and its terminal or channel. */
static void become_host(const attaching *a, int log, int nothing) {
    ek_options options = *a->options;
    options.home = a->home.text; /* the other one may be relative to where this process was started */
    setsid();
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    for (int fd = STDERR_FILENO + 1; fd < FD_MOST; fd++)
        close(fd);
#ifdef __linux__
    prctl(PR_SET_NAME, "edgekit-host");
#endif
    _exit(ek_host(&options));
}

/* False: said why. */
static bool start_host(attaching *a) {
    struct stat info;
    int log = ek_log_open(), nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (log < 0 || nothing < 0 || fstat(log, &info) != 0) {
        fprintf(stderr, "edgekit-runner: no host can be started: cannot write %s/run/log: %s\n", a->home.text, strerror(errno));
        return false;
    }
    a->log_bytes = info.st_size;
    a->child = fork();
    if (a->child == 0)
        become_host(a, log, nothing);
    close(log);
    close(nothing);
    if (a->child < 0)
        fprintf(stderr, "edgekit-runner: no host can be started: %s\n", strerror(errno));
    return a->child > 0;
}

static void print_log_tail(const attaching *a) {
    char text[TAIL_BYTES];
    int log = open("run/log", O_RDONLY | O_CLOEXEC);
    ssize_t n = log >= 0 ? pread(log, text, sizeof text, a->log_bytes) : -1;
    fprintf(stderr, "edgekit-runner: the host of %s could not be started:\n%.*s", a->home.text, n > 0 ? (int)n : 0, text);
    if (log >= 0)
        close(log);
}

/* False: the host that was started here failed, which was said. One that found the lock held is no failure. */
static bool child_is_well(attaching *a) {
    int status;
    if (a->child == 0 || waitpid(a->child, &status, WNOHANG) != a->child)
        return true;
    a->child = 0;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EK_EXIT_LOCKED))
        return true;
    print_log_tail(a);
    return false;
}

/* ---- reaching it ---- */

/* Send an echo and wait for its answer: a kernel accepts for a process that is stopped or stuck. */
static bool greet(const attaching *a, int fd) {
    static const uint8_t hello[] = {0x0A, 0, 0, 10, 0, 0, 0, 0, 0xA1, 0x61, 'd', 0x66, 'a', 't', 't', 'a', 'c', 'h'};
    uint8_t answer[sizeof hello]; /* {"r": "attach"} is as long */
    size_t got = 0;
    if (send(fd, hello, sizeof hello, 0) != (ssize_t)sizeof hello)
        return false;
    while (got < sizeof answer) {
        struct pollfd one = {fd, POLLIN, 0};
        if (poll(&one, 1, milliseconds_left(a)) <= 0)
            return false;
        ssize_t n = recv(fd, answer + got, sizeof answer - got, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        got += n > 0 ? (size_t)n : 0;
    }
    return ek_smp_header_read(answer).op == (EK_SMP_WRITE | 1);
}

/* The socket of a host that answers, or -1; *none: there is no host. */
static int try_host(const attaching *a, bool *none) {
    pid_t holder = ek_home_holder();
    int fd = ek_home_socket();
    if (holder > 0)
        kill(holder, SIGCONT); /* it may have been stopped */
    *none = holder == 0;
    if (fd < 0)
        return -1;
    if (ek_home_connect(fd) == 0 && greet(a, fd))
        return fd;
    close(fd);
    return -1;
}

/* 0 with the socket, or the exit code, the cause having been said. */
static int reach_host(attaching *a, int *fd) {
    for (;;) {
        bool none;
        *fd = try_host(a, &none);
        if (*fd >= 0)
            return 0;
        if (!child_is_well(a) || (none && a->child == 0 && !start_host(a)))
            return EK_EXIT_NO_HOST;
        if (milliseconds_left(a) == 0) {
            fprintf(stderr, "edgekit-runner: the host of %s (process %d) does not answer: it is stuck, or has 8 connections\n",
                    a->home.text, (int)ek_home_holder());
            return EK_EXIT_NO_ANSWER;
        }
        struct timespec pause = {0, AGAIN_MS * 1000000};
        nanosleep(&pause, NULL);
    }
}

/* ---- the bridge ---- */

typedef struct {
    uint8_t bytes[BUFFER_BYTES];
    size_t from, to;
    bool ended; /* nothing more comes */
} flow;

static bool empty(const flow *f) { return f->from == f->to; }

static void fill(flow *f, int fd) {
    ssize_t n = read(fd, f->bytes, sizeof f->bytes);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        f->ended = true;
    f->from = 0;
    f->to = n > 0 ? (size_t)n : 0;
}

/* False: nobody is there any more. No more than `most` bytes at once: what a pipe that is ready takes without blocking. */
static bool drain(flow *f, int fd, size_t most) {
    size_t left = f->to - f->from;
    ssize_t n = write(fd, f->bytes + f->from, left < most ? left : most);
    if (n > 0)
        f->from += (size_t)n;
    return n >= 0 || errno == EINTR || errno == EAGAIN;
}

/* Whether somebody stopped the process (SIGSTOP); not so a debugger. One that is merely slow is not stopped. */
static bool is_stopped(pid_t process) {
    char path[32], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = file >= 0 ? read(file, text, sizeof text - 1) : 0;
    if (file >= 0)
        close(file);
    text[n > 0 ? n : 0] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' && name_end[2] == 'T';
}

/* Until either side closes, or the host is found stopped. When stdin ends, what was asked is still answered. */
static int bridge(int host) {
    enum { PIPE_BYTES = 4096, EVER = -1 };
    static flow up, down;
    bool shut = false, waits = false; /* for the host's answer */
    while (!(down.ended && empty(&down))) {
        struct pollfd in = {empty(&up) && !up.ended ? STDIN_FILENO : -1, POLLIN, 0};
        struct pollfd out = {STDOUT_FILENO, empty(&down) ? 0 : POLLOUT, 0};
        struct pollfd both = {host, (short)((empty(&down) ? POLLIN : 0) | (empty(&up) ? 0 : POLLOUT)), 0};
        struct pollfd fds[] = {in, out, both};
        int ready = poll(fds, 3, waits ? LOOK_MS : EVER);
        pid_t holder = ready == 0 ? ek_home_holder() : 0;
        if (holder > 0 && is_stopped(holder)) {
            fprintf(stderr, "edgekit-runner: the host (process %d) was stopped by a signal\n", (int)holder);
            return EK_EXIT_STOPPED;
        }
        if (ready == 0 || (ready < 0 && errno == EINTR))
            continue;
        if (ready < 0 || fds[1].revents & (POLLERR | POLLNVAL))
            return 0;
        if (fds[0].revents)
            fill(&up, STDIN_FILENO);
        if ((fds[2].revents & (POLLIN | POLLHUP | POLLERR)) && empty(&down)) {
            fill(&down, host);
            waits = false;
        }
        if (!empty(&up)) {
            if (!drain(&up, host, BUFFER_BYTES))
                return 0;
            waits = true;
        }
        if ((fds[1].revents & POLLOUT) && !empty(&down) && !drain(&down, STDOUT_FILENO, PIPE_BYTES))
            return 0;
        if (up.ended && empty(&up) && !shut) {
            shutdown(host, SHUT_WR);
            shut = true;
        }
    }
    return 0;
}

int ek_attach(const ek_options *options) {
    attaching a = {.options = options, .until = ek_board_clock() + PATIENCE_NS};
    ek_error error;
    int fd;
    signal(SIGPIPE, SIG_IGN);
    if (ek_home_enter(options->home, &a.home, &error) != EK_OK) {
        fprintf(stderr, "edgekit-runner: no host can be started: %s\n", error.text);
        return EK_EXIT_NO_HOST;
    }
    int code = reach_host(&a, &fd);
    return code == 0 ? bridge(fd) : code;
}
