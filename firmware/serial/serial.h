/* SMP over a serial line: frames in, answers out, in the framing that each request came in; log lines between them. */
#ifndef EK_SERIAL_H
#define EK_SERIAL_H

#include "../runner/training.h"
#include "frame.h"
#include "ring.h"

#ifndef EK_SERIAL_BUFFER
#define EK_SERIAL_BUFFER 2048 /* bytes of a message */
#endif
enum { EK_HELLO_VERSION = 1, EK_BAUD_TRIAL_MS = 1000, EK_WRITE_ANSWER = 256 /* bytes: longer ones are not kept */ };

/* The line itself: what a port's UART driver fills and empties. */
typedef struct {
    ek_ring in, out;
    void (*send)(void);                   /* something was put into `out` */
    uint32_t baud;
    bool (*set_baud)(uint32_t baud);      /* when all of `out` is on the line; false: impossible. NULL: never */
    bool (*idle)(void);                   /* whether the last byte has left */
} ek_line;

typedef struct {
    ek_line *line;
    const ek_smp_server *server;
    const ek_training *training; /* whether a request must wait */
    uint64_t (*clock)(void);     /* ns */
    ek_ring *log;                /* text that is not out yet; whole lines go */

    ek_deframer deframer;
    ek_framing framing; /* of the last whole frame: what log lines are written in */
    ek_frame pending;   /* a request that is not answered yet */
    uint32_t wrote_crc; /* of the last write request */
    size_t wrote_size, wrote_answer_size;
    uint8_t wrote_answer[EK_WRITE_ANSWER];
    uint32_t new_baud, old_baud; /* asked for; to go back to, 0: none is on trial */
    uint64_t trial_end;
    uint8_t request[EK_SERIAL_BUFFER + EK_FRAME_EXTRA], response[EK_SERIAL_BUFFER];
} ek_serial;

/* line, server, training, clock and log are set; the rest is zero. */
void ek_serial_init(ek_serial *serial);

/* Answer what has come, as far as answers fit in the line. True: there may be more to do at once. */
bool ek_serial_serve(ek_serial *serial);

#endif
