#include "link.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

/* Signals are blocked everywhere but here, so that none is lost between a look at its flag and the wait. */
static bool readable(const ek_link *link, bool wait) {
    fd_set set;
    sigset_t none;
    struct timespec at_once = {0, 0};
    FD_ZERO(&set);
    FD_SET(link->in, &set);
    sigemptyset(&none);
    return pselect(link->in + 1, &set, NULL, NULL, wait ? NULL : &at_once, &none) > 0;
}

static void send_all(ek_link *link, const uint8_t *bytes, size_t size) {
    while (size && !link->closed) {
        ssize_t written = write(link->out, bytes, size);
        if (written < 0 && errno != EINTR)
            link->closed = true;
        if (written > 0) {
            bytes += written;
            size -= (size_t)written;
        }
    }
}

/* Drop the first `size` bytes of what was read; what has not arrived yet is dropped when it does. */
static void drop(ek_link *link, size_t size) {
    size_t now = size < link->have ? size : link->have;
    link->discard += size - now;
    link->have -= now;
    memmove(link->request, link->request + now, link->have);
}

/* Answer the first message. False: it is not whole yet, or has to wait. */
static bool answer_one(ek_link *link) {
    size_t held = link->discard;
    link->discard = 0;
    if (held)
        drop(link, held);
    if (link->closed || link->have < EK_SMP_HEADER)
        return false;
    ek_smp_header header = ek_smp_header_read(link->request);
    size_t size = EK_SMP_HEADER + (size_t)header.length, answer;
    if (size > sizeof link->request) {
        answer = ek_smp_refuse(link->server, link->request, EK_MGMT_TOO_LARGE, link->response);
    } else {
        if (link->have < size || ek_training_defers(link->training, &header))
            return false;
        answer = ek_smp_handle(link->server, link->request, size, link->response);
    }
    send_all(link, link->response, answer);
    drop(link, size);
    return true;
}

static void receive(ek_link *link) {
    ssize_t n = read(link->in, link->request + link->have, sizeof link->request - link->have);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        link->closed = true;
    if (n > 0)
        link->have += (size_t)n;
}

void ek_link_serve(ek_link *link, bool wait) {
    while (answer_one(link)) /* what had to wait */
        wait = false;
    if (link->closed || link->have == sizeof link->request || !readable(link, wait))
        return;
    receive(link);
    while (answer_one(link))
        ;
}
