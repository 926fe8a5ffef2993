/* Messages over a pair of file descriptors: the header's length delimits them (docs/protocol.md). */
#ifndef EK_LINK_H
#define EK_LINK_H

#include "../runner/training.h"

enum { EK_LINK_BUFFER = 16384 }; /* bytes of a message */

typedef struct {
    int in, out;
    const ek_smp_server *server;
    const ek_training *training; /* whether a request must wait */
    uint8_t request[EK_LINK_BUFFER], response[EK_LINK_BUFFER];
    size_t have;    /* bytes in `request` */
    size_t discard; /* bytes still to come of a message that was refused */
    bool closed;    /* end of input, or output gone */
} ek_link;

/* Answer the messages that are there. `wait`: until there is something to read, or a signal came. */
void ek_link_serve(ek_link *link, bool wait);

#endif
