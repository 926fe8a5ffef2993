#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "options.h"

/* The only globals that change: a signal handler has no other way to speak. */
static volatile sig_atomic_t asked_to_end;
static int wake = -1;

static void on_signal(int number) {
    int saved = errno;
    (void)number;
    asked_to_end = 1;
    if (wake >= 0 && write(wake, "", 1) < 0) /* full: there is a byte in it */
        errno = saved;
    errno = saved;
}

/* A mapped file was cut short while in use: nothing can be computed from it any more. */
static void on_bus_error(int number) {
    static const char text[] = "edgekit-runner: a mapped file became shorter, or the disk failed (SIGBUS)\n";
    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(EK_EXIT_FAILED);
    _exit(EK_EXIT_FAILED);
}

static void handle(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

static sigset_t endings(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

void ek_signals_set(void) {
    sigset_t blocked = endings();
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    handle(SIGTERM, on_signal);
    handle(SIGHUP, on_signal);
    handle(SIGBUS, on_bus_error);
    handle(SIGPIPE, SIG_IGN); /* write() says so */
    handle(SIGXFSZ, SIG_IGN); /* write() says so: EFBIG */
    if (!isatty(STDIN_FILENO))
        handle(SIGINT, SIG_IGN); /* Ctrl-C reaches the host's whole process group; the host then stops the session cleanly */
}

int ek_signals_wake(void) {
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    }
    wake = ends[1];
    sigset_t set = endings();
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return ends[0];
}

bool ek_asked_to_end(void) { return asked_to_end; }
