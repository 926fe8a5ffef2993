/* `host`: the runner as a process of its own, which trains whether or not anybody is connected (docs/session-host.md). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board.h"
#include "home.h"
#include "link.h"
#include "log.h"
#include "runner.h"
#include "signals.h"
#include "words.h"

enum { CLIENTS = 8, BACKLOG = 16, ANSWERS = 16 /* of one client in a row */ };

#define POLL_NS 1000000u      /* between two looks at the sockets while a step runs */
#define SECOND_NS 1000000000u
#define PATIENCE_NS (90ull * SECOND_NS) /* for which a host that was cut off tries to come back, and more */
#define SILENT_NS (60ull * SECOND_NS) /* a client that says nothing for so long gives its place to another */

typedef struct {
    bool open;
    uint64_t heard; /* when something came */
    ek_link link;
} client;

typedef struct {
    ek_runner runner;
    int listener, wake;
    uint64_t polled; /* the last look at the sockets */
    uint64_t busy;   /* when somebody last needed this process */
    uint64_t seen;   /* when somebody was last connected */
    uint64_t idle_ns;
    bool more;       /* a client has a message that is not answered yet */
    uint32_t said_id; /* the session and state that the log tells of */
    ek_session_state said_state;
    client clients[CLIENTS];
} host;

/* ---- clients ---- */

static void drop_client(client *c) {
    close(c->link.in);
    c->open = false;
}

/* A free place, or that of the client who has been silent for longest, if long enough. */
static client *find_place(host *h, uint64_t now) {
    client *oldest = &h->clients[0];
    for (int i = 0; i < CLIENTS; i++) {
        if (!h->clients[i].open)
            return &h->clients[i];
        if (h->clients[i].heard < oldest->heard)
            oldest = &h->clients[i];
    }
    if (now - oldest->heard < SILENT_NS)
        return NULL;
    ek_log("a client that was silent for %d s gives its place to another", (int)((now - oldest->heard) / SECOND_NS));
    drop_client(oldest);
    return oldest;
}

static void accept_client(host *h, uint64_t now) {
    int fd = accept(h->listener, NULL, NULL);
    if (fd < 0)
        return;
    client *c = find_place(h, now);
    if (!c) { /* it tries again */
        close(fd);
        return;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    c->open = true;
    c->heard = now;
    c->link.in = c->link.out = fd;
    c->link.have = c->link.discard = c->link.unsent = 0;
    c->link.waits = c->link.ended = c->link.closed = false;
}

static void attend_client(host *h, client *c, short events, uint64_t now) {
    ek_link *link = &c->link;
    if (events & (POLLOUT | POLLERR | POLLHUP))
        ek_link_flush(link);
    if ((events & (POLLIN | POLLERR | POLLHUP)) && ek_link_wants(link)) {
        ek_link_receive(link);
        c->heard = now;
    }
    int answers = 0;
    while (answers < ANSWERS && ek_link_answer(link))
        answers++;
    h->more |= answers == ANSWERS;
    if (link->closed || (link->ended && !link->unsent && !link->waits && answers < ANSWERS))
        drop_client(c);
}

/* Look at all sockets, waiting for `milliseconds` at most (-1: for ever), and do what can be done at once. */
static void attend(host *h, int milliseconds) {
    struct pollfd fds[2 + CLIENTS] = {{h->wake, POLLIN, 0}, {h->listener, POLLIN, 0}};
    for (int i = 0; i < CLIENTS; i++) {
        const ek_link *link = &h->clients[i].link;
        short events = (short)((ek_link_wants(link) ? POLLIN : 0) | (link->unsent ? POLLOUT : 0));
        fds[2 + i] = (struct pollfd){h->clients[i].open ? link->in : -1, events, 0};
    }
    int ready = poll(fds, 2 + CLIENTS, h->more ? 0 : milliseconds);
    uint64_t now = h->polled = ek_board_clock();
    h->more = false;
    for (int i = 0; i < CLIENTS; i++)
        if (h->clients[i].open)
            attend_client(h, &h->clients[i], ready > 0 ? fds[2 + i].revents : 0, now);
    if (ready > 0 && fds[1].revents)
        accept_client(h, now);
    char bytes[16];
    if (ready > 0 && fds[0].revents)
        while (read(h->wake, bytes, sizeof bytes) > 0)
            ;
}

/* Between two ops of a step. */
static void poll_host(void *context) {
    host *h = context;
    if (ek_board_clock() - h->polled >= POLL_NS)
        attend(h, 0);
}

/* ---- life ---- */

static bool connected(const host *h) {
    for (int i = 0; i < CLIENTS; i++)
        if (h->clients[i].open)
            return true;
    return false;
}

/* Whether the session waits for data that only the host can bring that started it, and is not kept for a later one. */
static bool needs_its_host(const host *h) {
    const ek_session *s = &h->runner.training.session;
    return ek_session_waits(s) && !s->kept.id.text[0];
}

static uint64_t longest(const host *h) {
    return needs_its_host(h) && PATIENCE_NS < h->idle_ns ? PATIENCE_NS : h->idle_ns;
}

/* Until when to wait for a client, in milliseconds; -1: for ever. */
static int patience(const host *h) {
    uint64_t alone = ek_board_clock() - (needs_its_host(h) ? h->seen : h->busy);
    if (connected(h))
        return -1;
    return alone >= longest(h) ? 0 : (int)((longest(h) - alone) / 1000000 + 1);
}

/* Its shards take room, and it keeps others from the board. */
static void stop_abandoned(host *h) {
    if (!needs_its_host(h) || connected(h) || ek_board_clock() - h->seen < longest(h))
        return;
    ek_log("session %u waited for a host that does not come back", h->runner.training.session.id);
    h->runner.training.session.stop_requested = true;
}

/* The log tells when a session begins and ends. */
static void tell_session(host *h) {
    const ek_session *s = &h->runner.training.session;
    if (s->id == h->said_id && s->state == h->said_state)
        return;
    h->said_id = s->id;
    h->said_state = s->state;
    if (s->state != EK_IDLE)
        ek_log("session %u %s: %s at step %llu of %llu%s%s", s->id, s->kept.id.text, ek_state_name(s->state),
               (unsigned long long)s->step, (unsigned long long)s->steps, s->state == EK_FAILED ? ": " : "",
               s->state == EK_FAILED ? s->error.text : "");
}

static void live(host *h) {
    ek_training *training = &h->runner.training;
    h->busy = h->seen = ek_board_clock();
    while (!ek_runner_ends(&h->runner)) {
        if (ek_training_steps(training))
            poll_host(h);
        else
            attend(h, patience(h));
        tell_session(h);
        stop_abandoned(h);
        if (ek_training_steps(training))
            ek_session_step(&training->session);
        tell_session(h);
        uint64_t now = ek_board_clock();
        if (connected(h))
            h->seen = now;
        if (ek_training_runs(training) || connected(h))
            h->busy = now;
        else if (now - h->busy >= h->idle_ns)
            break;
    }
}

/* The last answers go out, if they are read soon. */
static void part(host *h) {
    uint64_t until = ek_board_clock() + SECOND_NS;
    for (int i = 0; i < CLIENTS; i++) {
        ek_link *link = &h->clients[i].link;
        while (h->clients[i].open && link->unsent && !link->closed && ek_board_clock() < until) {
            struct pollfd one = {link->out, POLLOUT, 0};
            if (poll(&one, 1, 100) > 0)
                ek_link_flush(link);
        }
    }
}

static int begin(host *h, const ek_options *options, ek_path *home) {
    ek_error error;
    if (ek_home_enter(options->home, home, &error) != EK_OK) {
        fprintf(stderr, "edgekit-runner: %s\n", error.text);
        return EK_EXIT_FAILED;
    }
    int locked = ek_home_lock();
    if (locked == 0) {
        fprintf(stderr, "edgekit-runner: process %d is the host of %s\n", (int)ek_home_holder(), home->text);
        return EK_EXIT_LOCKED;
    }
    umask(0077);
    h->listener = locked > 0 ? ek_home_socket() : -1;
    if (h->listener < 0 || ek_home_listen(h->listener, BACKLOG) != 0) {
        fprintf(stderr, "edgekit-runner: cannot listen in %s/run: %s\n", home->text, strerror(errno));
        return EK_EXIT_FAILED;
    }
    return 0;
}

/* 0, or the exit code. */
static int open_runner(host *h, const ek_options *options, const ek_path *home) {
    ek_signals_set();
    int code = ek_runner_open(&h->runner, options, home, poll_host, h);
    if (code)
        return code;
    h->wake = ek_signals_wake();
    h->idle_ns = (uint64_t)options->idle * SECOND_NS;
    for (int i = 0; i < CLIENTS; i++) {
        h->clients[i].link.server = &h->runner.server;
        h->clients[i].link.training = &h->runner.training;
    }
    return h->wake < 0 ? EK_EXIT_FAILED : 0;
}

static void run(host *h, const ek_path *home) {
    const ek_board *board = &h->runner.platform.board;
    ek_log("host %u of %s: edgekit-runner %s, %s, %u threads", board->pid, home->text, board->version, board->isa, board->threads);
    live(h);
    ek_log("host %u ends: %s", board->pid,
           ek_asked_to_end() ? "a signal" : h->runner.training.ending ? "reset" : "nobody needs it");
    ek_runner_stop(&h->runner);
    tell_session(h);
    part(h);
    unlink("run/socket");
    ek_runner_close(&h->runner);
}

int ek_host(const ek_options *options) {
    host *h = calloc(1, sizeof *h);
    ek_path home;
    int code = h ? begin(h, options, &home) : EK_EXIT_FAILED;
    if (!code)
        code = open_runner(h, options, &home);
    if (!code)
        run(h, &home);
    free(h);
    return code;
}
