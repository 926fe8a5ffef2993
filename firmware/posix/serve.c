/* `serve`: one connection, on stdin and stdout. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include "board.h"
#include "link.h"
#include "runner.h"
#include "signals.h"
#include "words.h"

enum { POLL_NS = 100000 };

typedef struct {
    ek_runner runner;
    ek_link link;
    uint64_t polled;
} serving;

/* Until the link can do something, or at once. Signals are blocked everywhere but here, so that none is lost between a look at
 * its flag and the wait. */
static void exchange(ek_link *link, bool wait) {
    fd_set in, out;
    sigset_t none;
    struct timespec at_once = {0, 0};
    FD_ZERO(&in);
    FD_ZERO(&out);
    sigemptyset(&none);
    if (ek_link_wants(link))
        FD_SET(link->in, &in);
    if (link->unsent)
        FD_SET(link->out, &out);
    int most = link->in > link->out ? link->in : link->out;
    if (pselect(most + 1, &in, &out, NULL, wait ? NULL : &at_once, &none) <= 0)
        return;
    if (FD_ISSET(link->out, &out))
        ek_link_flush(link);
    if (FD_ISSET(link->in, &in))
        ek_link_receive(link);
}

static bool over(const ek_link *link) { return link->ended || link->closed; }

static void serve_link(ek_link *link, bool wait) {
    while (ek_link_answer(link)) /* what had to wait */
        wait = false;
    if (over(link))
        return;
    exchange(link, wait);
    while (!over(link) && ek_link_answer(link))
        ;
}

/* Between two ops. A look at the link is a system call, so a program of tiny ops looks less often. */
static void poll_link(void *context) {
    serving *s = context;
    uint64_t now = ek_board_clock();
    if (now - s->polled < POLL_NS || over(&s->link))
        return;
    serve_link(&s->link, false);
    s->polled = now;
}

static void serve(serving *s) {
    ek_training *training = &s->runner.training;
    while (!ek_runner_ends(&s->runner) && !over(&s->link)) {
        serve_link(&s->link, !ek_training_steps(training));
        if (ek_training_steps(training))
            ek_session_step(&training->session);
    }
    ek_runner_stop(&s->runner);
    if (training->session.state == EK_FAILED)
        fprintf(stderr, "edgekit-runner: %s\n", training->session.error.text);
}

/* Messages get a descriptor of their own; a stray print to stdout then lands on stderr. */
static int take_stdout(void) {
    int out = dup(STDOUT_FILENO);
    if (out >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return -1;
    return out;
}

int ek_serve(const ek_options *options) {
    serving *s = calloc(1, sizeof *s);
    int out = take_stdout();
    if (!s || out < 0) {
        fprintf(stderr, "edgekit-runner: cannot start: %s\n", strerror(errno));
        return EK_EXIT_FAILED;
    }
    ek_signals_set();
    int code = ek_runner_open(&s->runner, options, NULL, poll_link, s);
    if (code)
        return code;
    s->link = (ek_link){.in = STDIN_FILENO, .out = out, .server = &s->runner.server, .training = &s->runner.training};
    serve(s);
    ek_runner_close(&s->runner);
    free(s);
    return 0;
}
