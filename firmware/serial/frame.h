/* Frames on a serial line (docs/protocol.md, "Serial line"), in two forms that tell themselves apart:
 *
 * console  06 09, base64, newline; further lines begin with 04 14. The first two bytes are the length, the last two a CRC-16.
 *          What is outside of frames is text for people. Any SMP tool speaks it.
 * COBS     00, the frame with its zeros stuffed away (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999), 00.
 *          A frame is its kind, the payload, and their CRC-32.
 */
#ifndef EK_FRAME_H
#define EK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { EK_NO_FRAMING, EK_CONSOLE, EK_COBS } ek_framing;
enum { EK_FRAME_MESSAGE = 1, EK_FRAME_LOG = 2, EK_FRAME_HELLO = 3, EK_FRAME_BAUD = 4 };
enum { EK_FRAME_EXTRA = 5 /* bytes of kind and CRC-32 */, EK_CONSOLE_LINE = 127 };

/* Takes a line's bytes one by one. */
typedef struct {
    uint8_t *bytes; /* of the frame under way */
    size_t room, have;
    uint8_t state, block;
    bool full;      /* this block of 255 stands for no zero */
    bool bad;       /* the frame under way is dropped when it ends */
    uint8_t sextets;
    uint32_t bits;  /* of base64 */
    uint32_t dropped; /* frames so far that were damaged or too long */
} ek_deframer;

/* `room` bytes at `to` are for the longest payload and EK_FRAME_EXTRA. */
void ek_deframer_init(ek_deframer *deframer, uint8_t *to, size_t room);

/* A whole frame: its payload lies in the deframer until the next byte is taken. */
typedef struct {
    ek_framing framing; /* EK_NO_FRAMING: none yet */
    uint8_t kind;
    const uint8_t *payload;
    size_t size;
} ek_frame;

ek_frame ek_deframer_take(ek_deframer *deframer, uint8_t byte);

/* Most bytes that a payload takes on the line. */
size_t ek_frame_most(ek_framing framing, size_t size);

typedef void ek_put(void *context, uint8_t byte);

/* Write a frame byte by byte. The console has only messages. */
void ek_frame_write(ek_framing framing, uint8_t kind, const uint8_t *payload, size_t size, ek_put *put, void *context);

#endif
