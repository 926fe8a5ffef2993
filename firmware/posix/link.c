#include "link.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void ek_link_flush(ek_link *link) {
    while (link->unsent && !link->closed) {
        ssize_t written = write(link->out, link->response + link->sent, link->unsent);
        if (written < 0 && errno == EAGAIN)
            return;
        if (written < 0 && errno != EINTR)
            link->closed = true;
        if (written > 0) {
            link->sent += (size_t)written;
            link->unsent -= (size_t)written;
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

bool ek_link_answer(ek_link *link) {
    size_t held = link->discard;
    link->waits = false;
    link->discard = 0;
    if (held)
        drop(link, held);
    if (link->closed || link->unsent || link->have < EK_SMP_HEADER)
        return false;
    ek_smp_header header = ek_smp_header_read(link->request);
    size_t size = EK_SMP_HEADER + (size_t)header.length;
    if (size > sizeof link->request) {
        link->unsent = ek_smp_refuse(link->server, link->request, EK_MGMT_TOO_LARGE, link->response);
    } else {
        link->waits = link->have >= size && ek_training_defers(link->training, &header);
        if (link->have < size || link->waits)
            return false;
        link->unsent = ek_smp_handle(link->server, link->request, size, link->response);
    }
    link->sent = 0;
    drop(link, size);
    ek_link_flush(link);
    return true;
}

bool ek_link_wants(const ek_link *link) {
    return !link->ended && !link->closed && !link->unsent && link->have < sizeof link->request;
}

void ek_link_receive(ek_link *link) {
    ssize_t n = read(link->in, link->request + link->have, sizeof link->request - link->have);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        link->ended = true;
    if (n > 0)
        link->have += (size_t)n;
}
