/* A small bounded reader and writer of CBOR (RFC 8949). No allocation; the reader points into the message.
 *
 * Reading: ek_cbor_open checks once that the bytes are one well-formed map, so that what follows need not be defensive.
 * Definite and indefinite maps and arrays pass; a text value is taken only where it is one definite, valid UTF-8 string. */
#ifndef EK_CBOR_H
#define EK_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EK_CBOR_DEPTH = 8 }; /* nesting that a message may have */

/* One well-formed item: its bytes. */
typedef struct {
    const uint8_t *at, *end;
} ek_cbor;

/* Check that `bytes` are exactly one well-formed map; no bytes at all count as the empty map. */
bool ek_cbor_open(ek_cbor *map, const uint8_t *bytes, size_t size);

/* The value of a text key in a map that ek_cbor_open or this function gave. False: no such key, or no map. */
bool ek_cbor_find(const ek_cbor *map, const char *key, ek_cbor *value);

/* The value, where the item has the type. */
bool ek_cbor_text(const ek_cbor *item, const char **text, size_t *length);
bool ek_cbor_bytes(const ek_cbor *item, const uint8_t **bytes, size_t *length); /* one definite string */
bool ek_cbor_uint(const ek_cbor *item, uint64_t *value);
bool ek_cbor_bool(const ek_cbor *item, bool *value);

/* Writing: after an overflow nothing more is written and `overflow` stays set. */
typedef struct {
    uint8_t *at, *end;
    bool overflow;
} ek_cbor_writer;

void ek_cbor_write_map(ek_cbor_writer *to, uint64_t pairs);
void ek_cbor_write_array(ek_cbor_writer *to, uint64_t items);
void ek_cbor_write_text(ek_cbor_writer *to, const char *text);
void ek_cbor_write_text_n(ek_cbor_writer *to, const char *text, size_t length);
void ek_cbor_write_bytes(ek_cbor_writer *to, const void *bytes, size_t length);
void ek_cbor_write_uint(ek_cbor_writer *to, uint64_t value);
void ek_cbor_write_int(ek_cbor_writer *to, int64_t value);
void ek_cbor_write_f32(ek_cbor_writer *to, float value);
void ek_cbor_write_f64(ek_cbor_writer *to, double value);
void ek_cbor_write_bool(ek_cbor_writer *to, bool value);
void ek_cbor_write_null(ek_cbor_writer *to);

/* Whether the bytes are UTF-8 (RFC 3629: no surrogates, nothing overlong, at most U+10FFFF). */
bool ek_utf8(const char *text, size_t length);

#endif
