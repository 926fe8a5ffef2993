#include "serial.h"

#include <string.h>

#include "../runner/crc32.h"

enum { LOG_LINE = 160 };

void ek_serial_init(ek_serial *s) {
    s->framing = EK_CONSOLE;
    ek_deframer_init(&s->deframer, s->request, sizeof s->request);
}

static void put(void *context, uint8_t byte) { ek_ring_put(&((ek_line *)context)->out, byte); }

static void send_frame(ek_serial *s, ek_framing framing, uint8_t kind, const uint8_t *payload, size_t size) {
    ek_frame_write(framing, kind, payload, size, put, s->line);
    s->line->send();
}

static bool fits(const ek_serial *s, ek_framing framing, size_t size) {
    return ek_ring_room(&s->line->out) >= ek_frame_most(framing, size);
}

/* ---- frames of the line itself ---- */

static void write_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t read_u32(const uint8_t *b) {
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* What a host may send: the longest message, and how many bytes before it has an answer. */
static void say_hello(ek_serial *s) {
    uint8_t hello[16] = {EK_HELLO_VERSION};
    write_u32(hello + 4, EK_SERIAL_BUFFER);
    write_u32(hello + 8, s->line->in.size);
    write_u32(hello + 12, s->line->baud);
    send_frame(s, EK_COBS, EK_FRAME_HELLO, hello, sizeof hello);
}

static void ask_for_baud(ek_serial *s, const ek_frame *frame) {
    uint32_t baud = frame->size == 4 ? read_u32(frame->payload) : 0;
    uint8_t answer[4];
    if (!s->line->set_baud)
        baud = 0;
    s->new_baud = baud;
    write_u32(answer, baud);
    send_frame(s, EK_COBS, EK_FRAME_BAUD, answer, sizeof answer);
}

/* Change the rate when the answer is out; go back where nothing whole comes at the new one. */
static void mind_baud(ek_serial *s) {
    if (s->new_baud && ek_ring_held(&s->line->out) == 0 && s->line->idle()) {
        uint32_t old = s->line->baud;
        if (s->line->set_baud(s->new_baud)) {
            s->old_baud = old;
            s->line->baud = s->new_baud;
            s->trial_end = s->clock() + EK_BAUD_TRIAL_MS * 1000000ull;
        }
        s->new_baud = 0;
    }
    if (s->old_baud && s->clock() > s->trial_end) {
        s->line->set_baud(s->old_baud);
        s->line->baud = s->old_baud;
        s->old_baud = 0;
    }
}

/* ---- requests ---- */

/* A write that comes once more, because its answer was lost, is answered as before: no request does its work twice. Reads may be
 * asked in between: a host that opens the line again says hello first. */
static void answer(ek_serial *s, const ek_frame *frame) {
    uint32_t crc = ek_crc32(frame->payload, frame->size);
    if (s->wrote_size == frame->size && s->wrote_crc == crc) {
        send_frame(s, frame->framing, EK_FRAME_MESSAGE, s->wrote_answer, s->wrote_answer_size);
        return;
    }
    size_t size = ek_smp_handle(s->server, frame->payload, frame->size, s->response);
    if (ek_smp_header_read(frame->payload).op == EK_SMP_WRITE) {
        s->wrote_size = size <= sizeof s->wrote_answer ? frame->size : 0;
        s->wrote_crc = crc;
        s->wrote_answer_size = size;
        if (s->wrote_size)
            memcpy(s->wrote_answer, s->response, size);
    }
    send_frame(s, frame->framing, EK_FRAME_MESSAGE, s->response, size);
}

/* False: it has to wait, for room in the line or for the end of a step. */
static bool handle(ek_serial *s, const ek_frame *frame) {
    if (!fits(s, frame->framing, EK_SERIAL_BUFFER))
        return false;
    s->framing = frame->framing;
    s->old_baud = 0; /* the new rate works */
    if (frame->kind == EK_FRAME_HELLO) {
        say_hello(s);
        return true;
    }
    if (frame->kind == EK_FRAME_BAUD) {
        ask_for_baud(s, frame);
        return true;
    }
    if (frame->kind != EK_FRAME_MESSAGE || frame->size < EK_SMP_HEADER)
        return true;
    ek_smp_header header = ek_smp_header_read(frame->payload);
    if (ek_training_defers(s->training, &header))
        return false;
    answer(s, frame);
    return true;
}

/* ---- the log ---- */

/* The first whole line, without its end. Bytes to drop from the log, 0 where there is none. */
static uint32_t peek_line(const ek_ring *log, uint8_t *to, size_t *size) {
    *size = 0;
    for (uint32_t at = log->tail; at != log->head; at++) {
        uint8_t byte = log->bytes[at & (log->size - 1)];
        if (byte == '\n' || *size == LOG_LINE)
            return at - log->tail + (byte == '\n');
        to[(*size)++] = byte;
    }
    return 0;
}

static bool write_log(ek_serial *s) {
    uint8_t line[LOG_LINE];
    size_t size;
    uint32_t taken = peek_line(s->log, line, &size);
    if (!taken || !fits(s, EK_COBS, size + 2))
        return false;
    if (s->framing == EK_COBS) {
        ek_frame_write(EK_COBS, EK_FRAME_LOG, line, size, put, s->line);
    } else {
        for (size_t i = 0; i < size; i++)
            put(s->line, line[i]);
        put(s->line, '\r');
        put(s->line, '\n');
    }
    s->log->tail += taken;
    s->line->send();
    return true;
}

bool ek_serial_serve(ek_serial *s) {
    uint8_t byte;
    mind_baud(s);
    while (s->pending.framing || ek_ring_get(&s->line->in, &byte)) {
        if (!s->pending.framing)
            s->pending = ek_deframer_take(&s->deframer, byte);
        if (!s->pending.framing)
            continue;
        if (!handle(s, &s->pending))
            return false;
        s->pending.framing = EK_NO_FRAMING;
        if (s->new_baud) /* nothing may follow the answer at the old rate */
            return false;
    }
    return write_log(s);
}
