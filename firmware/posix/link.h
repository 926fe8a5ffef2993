/* Messages over a pair of file descriptors: the header's length delimits them (docs/protocol.md). One message is answered at a
 * time, and none is read before the last answer has been written: a client that does not read costs one buffer, and no time. */
#ifndef EK_LINK_H
#define EK_LINK_H

#include "../runner/training.h"

enum { EK_LINK_BUFFER = 16384 }; /* bytes of a message */

typedef struct {
    int in, out;
    const ek_smp_server *server;
    const ek_training *training; /* whether a request must wait */
    uint8_t request[EK_LINK_BUFFER], response[EK_LINK_BUFFER];
    size_t have;           /* bytes in `request` */
    size_t discard;        /* bytes still to come of a message that was refused */
    size_t sent, unsent;   /* of `response` */
    bool waits;            /* the first message is whole, and is answered when the step under way is finished */
    bool ended;            /* no more comes in */
    bool closed;           /* nothing can be done any more */
} ek_link;

/* Whether there is use for more input. */
bool ek_link_wants(const ek_link *link);

/* Read what is there. */
void ek_link_receive(ek_link *link);

/* Write what is left of the last answer, as far as it goes. */
void ek_link_flush(ek_link *link);

/* Answer the first message. False: there is none, it has to wait, or the last answer is not out. */
bool ek_link_answer(ek_link *link);

#endif
