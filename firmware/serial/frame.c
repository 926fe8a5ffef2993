#include "frame.h"

#include <string.h>

#include "../runner/crc32.h"

enum { IDLE, SAW_06, SAW_04, CONSOLE_FIRST, CONSOLE_MORE, BETWEEN_LINES, COBS_START, COBS_BODY };
enum { LENGTH_BYTES = 2, CRC16_BYTES = 2, CRC32_BYTES = 4 };

/* CRC-16/XMODEM: polynomial 1021, begins with 0. */
static uint16_t crc16(const uint8_t *bytes, size_t size) {
    uint16_t crc = 0;
    for (size_t i = 0; i < size; i++) {
        crc ^= (uint16_t)(bytes[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

static uint32_t little_endian(const uint8_t *b) {
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* ---- reading ---- */

void ek_deframer_init(ek_deframer *d, uint8_t *to, size_t room) {
    *d = (ek_deframer){.bytes = to, .room = room};
}

static const ek_frame none = {EK_NO_FRAMING, 0, NULL, 0};

static void begin(ek_deframer *d, uint8_t state) {
    d->state = state;
    d->have = 0;
    d->bits = d->sextets = 0;
    d->bad = false;
}

static void drop(ek_deframer *d) {
    d->dropped++;
    begin(d, IDLE);
}

static void store(ek_deframer *d, uint8_t byte) {
    if (d->have == d->room)
        d->bad = true;
    else
        d->bytes[d->have++] = byte;
}

static ek_frame end_cobs(ek_deframer *d) {
    bool whole = !d->bad && d->block == 0 && d->have >= EK_FRAME_EXTRA;
    size_t size = whole ? d->have - CRC32_BYTES : 0;
    if (!whole || ek_crc32(d->bytes, size) != little_endian(d->bytes + size)) {
        drop(d);
        begin(d, COBS_START); /* what ended a damaged frame may have been the start of the next one */
        return none;
    }
    begin(d, IDLE);
    return (ek_frame){EK_COBS, d->bytes[0], d->bytes + 1, size - 1};
}

/* `block` counts the bytes that are left of a block; the next byte is then a block's length. */
static ek_frame take_cobs(ek_deframer *d, uint8_t byte) {
    if (byte == 0)
        return end_cobs(d);
    if (d->block == 0) {
        if (!d->full)
            store(d, 0);
        d->full = byte == 0xFF;
        d->block = (uint8_t)(byte - 1);
    } else {
        store(d, byte);
        d->block--;
    }
    return none;
}

static void start_cobs(ek_deframer *d, uint8_t byte) {
    begin(d, COBS_BODY);
    d->full = byte == 0xFF;
    d->block = (uint8_t)(byte - 1);
}

static int sextet(uint8_t c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* After a line: the frame is whole, or goes on in the next line. */
static ek_frame end_line(ek_deframer *d) {
    size_t length = d->have < LENGTH_BYTES ? 0 : (size_t)(d->bytes[0] << 8 | d->bytes[1]);
    bool hopeless = d->bad || d->have < LENGTH_BYTES || length < CRC16_BYTES || LENGTH_BYTES + length > d->room ||
                    d->have > LENGTH_BYTES + length;
    if (hopeless) {
        drop(d);
        return none;
    }
    if (d->have < LENGTH_BYTES + length) {
        d->state = BETWEEN_LINES;
        return none;
    }
    const uint8_t *payload = d->bytes + LENGTH_BYTES;
    size_t size = length - CRC16_BYTES;
    if (crc16(payload, size) != (uint16_t)(payload[size] << 8 | payload[size + 1])) {
        drop(d);
        return none;
    }
    begin(d, IDLE);
    return (ek_frame){EK_CONSOLE, EK_FRAME_MESSAGE, payload, size};
}

static ek_frame take_base64(ek_deframer *d, uint8_t byte) {
    int value = sextet(byte);
    if (byte == '\n')
        return end_line(d);
    if (byte == '\r' || byte == '=') /* padding: its bits stay behind */
        return none;
    if (value < 0) {
        drop(d);
        return none;
    }
    d->bits = d->bits << 6 | (uint32_t)value;
    d->sextets++;
    if (d->sextets % 4 != 1)
        store(d, (uint8_t)(d->bits >> 2 * (3 - (d->sextets + 3) % 4)));
    return none;
}

static void start_line(ek_deframer *d, bool first) {
    if (first)
        begin(d, CONSOLE_FIRST);
    d->state = first ? CONSOLE_FIRST : CONSOLE_MORE;
    d->bits = d->sextets = 0;
}

/* Outside of frames, and between the lines of one. */
static void look_for_start(ek_deframer *d, uint8_t byte, bool goes_on) {
    if (byte == 0)
        begin(d, COBS_START);
    else if (byte == 0x06)
        d->state = SAW_06;
    else if (byte == 0x04 && goes_on)
        d->state = SAW_04;
}

ek_frame ek_deframer_take(ek_deframer *d, uint8_t byte) {
    switch (d->state) {
    case COBS_BODY:
        /* No kind of frame is 9: this is a console frame after a stray 00. */
        if (d->have == 0 && d->block == 0x05 && !d->full && byte == 0x09 && !d->bad) {
            start_line(d, true);
            return none;
        }
        return take_cobs(d, byte);
    case COBS_START:
        if (byte != 0)
            start_cobs(d, byte);
        return none;
    case CONSOLE_FIRST:
    case CONSOLE_MORE:
        if (byte == 0) {
            drop(d);
            begin(d, COBS_START);
            return none;
        }
        return take_base64(d, byte);
    case SAW_06:
    case SAW_04:
        if (byte == (d->state == SAW_06 ? 0x09 : 0x14)) {
            start_line(d, d->state == SAW_06);
            return none;
        }
        begin(d, IDLE);
        look_for_start(d, byte, false);
        return none;
    default:
        look_for_start(d, byte, d->state == BETWEEN_LINES);
        return none;
    }
}

/* ---- writing ---- */

size_t ek_frame_most(ek_framing framing, size_t size) {
    if (framing == EK_COBS) {
        size_t raw = size + EK_FRAME_EXTRA;
        return 2 + 1 + raw + raw / 254;
    }
    size_t raw = LENGTH_BYTES + size + CRC16_BYTES, per_line = (EK_CONSOLE_LINE - 3) / 4 * 3;
    return (raw + 2) / 3 * 4 + (raw + per_line - 1) / per_line * 3;
}

/* What goes into a frame, as one row of bytes. */
typedef struct {
    const uint8_t *head, *payload, *tail;
    size_t head_size, size, tail_size;
} row;

static uint8_t at(const row *r, size_t i) {
    if (i < r->head_size)
        return r->head[i];
    i -= r->head_size;
    return i < r->size ? r->payload[i] : r->tail[i - r->size];
}

static size_t total(const row *r) { return r->head_size + r->size + r->tail_size; }

static void write_cobs(uint8_t kind, const uint8_t *payload, size_t size, ek_put *put, void *context) {
    uint32_t crc = ek_crc32_more(ek_crc32(&kind, 1), payload, size);
    uint8_t tail[CRC32_BYTES] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16), (uint8_t)(crc >> 24)};
    row r = {&kind, payload, tail, 1, size, sizeof tail};
    size_t end = total(&r), from = 0;
    put(context, 0);
    for (bool more = true; more;) {
        size_t stop = from;
        while (stop < end && stop - from < 254 && at(&r, stop) != 0)
            stop++;
        put(context, (uint8_t)(stop - from + 1));
        for (size_t i = from; i < stop; i++)
            put(context, at(&r, i));
        bool zero = stop < end && stop - from < 254;
        from = zero ? stop + 1 : stop;
        more = zero || from < end;
    }
    put(context, 0);
}

static void write_console(const uint8_t *payload, size_t size, ek_put *put, void *context) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint16_t crc = crc16(payload, size), length = (uint16_t)(size + CRC16_BYTES);
    uint8_t head[LENGTH_BYTES] = {(uint8_t)(length >> 8), (uint8_t)length}, tail[CRC16_BYTES] = {(uint8_t)(crc >> 8), (uint8_t)crc};
    row r = {head, payload, tail, sizeof head, size, sizeof tail};
    size_t end = total(&r);
    enum { PER_LINE = (EK_CONSOLE_LINE - 3) / 4 * 3 };
    for (size_t line = 0; line < end; line += PER_LINE) {
        size_t stop = line + PER_LINE < end ? line + PER_LINE : end;
        put(context, line ? 0x04 : 0x06);
        put(context, line ? 0x14 : 0x09);
        for (size_t i = line; i < stop; i += 3) {
            size_t n = stop - i < 3 ? stop - i : 3;
            uint32_t bits = (uint32_t)at(&r, i) << 16 | (n > 1 ? (uint32_t)at(&r, i + 1) << 8 : 0) | (n > 2 ? at(&r, i + 2) : 0);
            for (size_t j = 0; j < 4; j++)
                put(context, j <= n ? (uint8_t)digits[bits >> (18 - 6 * j) & 63] : '=');
        }
        put(context, '\n');
    }
}

void ek_frame_write(ek_framing framing, uint8_t kind, const uint8_t *payload, size_t size, ek_put *put, void *context) {
    if (framing == EK_COBS)
        write_cobs(kind, payload, size, put, context);
    else
        write_console(payload, size, put, context);
}
