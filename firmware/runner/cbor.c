#include "cbor.h"

#include <string.h>

/* Major types and the additional information of an item's first byte (RFC 8949, 3). */
enum { UINT = 0, NEGATIVE = 1, BYTES = 2, TEXT = 3, ARRAY = 4, MAP = 5, TAG = 6, SIMPLE = 7 };
enum { ONE_BYTE = 24, EIGHT_BYTES = 27, INDEFINITE = 31 };
enum { FALSE_BYTE = 0xF4, TRUE_BYTE = 0xF5, NULL_BYTE = 0xF6, F32_BYTE = 0xFA, F64_BYTE = 0xFB, BREAK_BYTE = 0xFF };

typedef struct {
    uint8_t major, info;
    uint64_t value;
} head;

/* Read an item's head. False: cut, or additional information that RFC 8949 reserves. */
static bool read_head(ek_cbor *from, head *h) {
    if (from->at == from->end)
        return false;
    h->major = *from->at >> 5;
    h->info = *from->at & 31;
    h->value = h->info;
    from->at++;
    if (h->info < ONE_BYTE || h->info == INDEFINITE)
        return true;
    if (h->info > EIGHT_BYTES)
        return false;
    size_t bytes = (size_t)1 << (h->info - ONE_BYTE);
    if ((size_t)(from->end - from->at) < bytes)
        return false;
    h->value = 0;
    for (size_t i = 0; i < bytes; i++)
        h->value = h->value << 8 | *from->at++;
    return true;
}

static bool at_break(const ek_cbor *from) { return from->at < from->end && *from->at == BREAK_BYTE; }

static bool skip(ek_cbor *from, int depth);

static bool skip_string(ek_cbor *from, const head *h) {
    if (h->info != INDEFINITE) {
        if (h->value > (uint64_t)(from->end - from->at))
            return false;
        from->at += h->value;
        return true;
    }
    while (!at_break(from)) { /* chunks: definite strings of the same type */
        head chunk;
        if (!read_head(from, &chunk) || chunk.major != h->major || chunk.info == INDEFINITE || !skip_string(from, &chunk))
            return false;
    }
    from->at++;
    return true;
}

static bool skip_items(ek_cbor *from, const head *h, int depth) {
    uint64_t each = h->major == MAP ? 2 : 1;
    if (h->info != INDEFINITE) {
        if (h->value > (uint64_t)(from->end - from->at) / each) /* every item takes a byte; also bounds the loop */
            return false;
        for (uint64_t i = 0; i < h->value * each; i++)
            if (!skip(from, depth - 1))
                return false;
        return true;
    }
    while (!at_break(from))
        for (uint64_t i = 0; i < each; i++)
            if (!skip(from, depth - 1))
                return false;
    from->at++;
    return true;
}

/* Step over one well-formed item. */
static bool skip(ek_cbor *from, int depth) {
    head h;
    if (depth == 0 || !read_head(from, &h))
        return false;
    switch (h.major) {
    case UINT:
    case NEGATIVE:
        return h.info != INDEFINITE;
    case BYTES:
    case TEXT:
        return skip_string(from, &h);
    case ARRAY:
    case MAP:
        return skip_items(from, &h, depth);
    case TAG:
        return h.info != INDEFINITE && skip(from, depth - 1);
    default: /* a break has no place here; a two-byte simple value must be 32 or more */
        return h.info != INDEFINITE && (h.info != ONE_BYTE || h.value >= 32);
    }
}

bool ek_cbor_open(ek_cbor *map, const uint8_t *bytes, size_t size) {
    static const uint8_t empty[] = {MAP << 5};
    *map = size ? (ek_cbor){bytes, bytes + size} : (ek_cbor){empty, empty + 1};
    ek_cbor walk = *map;
    return *map->at >> 5 == MAP && skip(&walk, EK_CBOR_DEPTH) && walk.at == walk.end;
}

bool ek_cbor_find(const ek_cbor *map, const char *key, ek_cbor *value) {
    ek_cbor walk = *map;
    head h;
    if (!read_head(&walk, &h) || h.major != MAP)
        return false;
    for (uint64_t i = 0; h.info == INDEFINITE ? !at_break(&walk) : i < h.value; i++) {
        ek_cbor name = walk;
        const char *text;
        size_t length;
        if (!skip(&walk, EK_CBOR_DEPTH))
            return false;
        name.end = walk.at;
        value->at = walk.at;
        if (!skip(&walk, EK_CBOR_DEPTH))
            return false;
        value->end = walk.at;
        if (ek_cbor_text(&name, &text, &length) && length == strlen(key) && memcmp(text, key, length) == 0)
            return true;
    }
    return false;
}

bool ek_cbor_text(const ek_cbor *item, const char **text, size_t *length) {
    ek_cbor walk = *item;
    head h;
    if (!read_head(&walk, &h) || h.major != TEXT || h.info == INDEFINITE)
        return false;
    *text = (const char *)walk.at;
    *length = (size_t)h.value;
    return ek_utf8(*text, *length);
}

bool ek_cbor_bytes(const ek_cbor *item, const uint8_t **bytes, size_t *length) {
    ek_cbor walk = *item;
    head h;
    if (!read_head(&walk, &h) || h.major != BYTES || h.info == INDEFINITE)
        return false;
    *bytes = walk.at;
    *length = (size_t)h.value;
    return true;
}

bool ek_cbor_uint(const ek_cbor *item, uint64_t *value) {
    ek_cbor walk = *item;
    head h;
    if (!read_head(&walk, &h) || h.major != UINT)
        return false;
    *value = h.value;
    return true;
}

bool ek_cbor_bool(const ek_cbor *item, bool *value) {
    *value = *item->at == TRUE_BYTE;
    return *item->at == TRUE_BYTE || *item->at == FALSE_BYTE;
}

bool ek_utf8(const char *text, size_t length) {
    const uint8_t *at = (const uint8_t *)text, *end = at + length;
    while (at < end) {
        uint8_t first = *at++;
        if (first < 0x80)
            continue;
        int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (first < 0xC2 || first > 0xF4 || end - at < more)
            return false;
        uint32_t point = first & (0x3Fu >> more);
        for (int i = 0; i < more; i++, at++) {
            if ((*at & 0xC0) != 0x80)
                return false;
            point = point << 6 | (*at & 0x3F);
        }
        if (point < least[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
            return false;
    }
    return true;
}

static void write_raw(ek_cbor_writer *to, const void *bytes, size_t length) {
    if (to->overflow || length > (size_t)(to->end - to->at)) {
        to->overflow = true;
        return;
    }
    if (length)
        memcpy(to->at, bytes, length);
    to->at += length;
}

static void write_big_endian(ek_cbor_writer *to, uint8_t first, uint64_t value, size_t bytes) {
    uint8_t raw[9] = {first};
    for (size_t i = 0; i < bytes; i++)
        raw[1 + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    write_raw(to, raw, 1 + bytes);
}

/* The shortest head, as RFC 8949 4.1 prefers. */
static void write_head(ek_cbor_writer *to, uint8_t major, uint64_t value) {
    if (value < ONE_BYTE) {
        write_big_endian(to, (uint8_t)(major << 5 | value), 0, 0);
        return;
    }
    int log2 = value <= 0xFF ? 0 : value <= 0xFFFF ? 1 : value <= 0xFFFFFFFF ? 2 : 3;
    write_big_endian(to, (uint8_t)(major << 5 | (ONE_BYTE + log2)), value, (size_t)1 << log2);
}

void ek_cbor_write_map(ek_cbor_writer *to, uint64_t pairs) { write_head(to, MAP, pairs); }

void ek_cbor_write_array(ek_cbor_writer *to, uint64_t items) { write_head(to, ARRAY, items); }

void ek_cbor_write_text(ek_cbor_writer *to, const char *text) {
    size_t length = strlen(text);
    while (!ek_utf8(text, length)) /* an error's text may have been cut to fit, inside a character */
        length--;
    ek_cbor_write_text_n(to, text, length);
}

void ek_cbor_write_text_n(ek_cbor_writer *to, const char *text, size_t length) {
    write_head(to, TEXT, length);
    write_raw(to, text, length);
}

void ek_cbor_write_bytes(ek_cbor_writer *to, const void *bytes, size_t length) {
    write_head(to, BYTES, length);
    write_raw(to, bytes, length);
}

void ek_cbor_write_uint(ek_cbor_writer *to, uint64_t value) { write_head(to, UINT, value); }

void ek_cbor_write_int(ek_cbor_writer *to, int64_t value) {
    write_head(to, value < 0 ? NEGATIVE : UINT, value < 0 ? ~(uint64_t)value : (uint64_t)value);
}

void ek_cbor_write_f32(ek_cbor_writer *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_big_endian(to, F32_BYTE, bits, sizeof bits);
}

void ek_cbor_write_f64(ek_cbor_writer *to, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_big_endian(to, F64_BYTE, bits, sizeof bits);
}

void ek_cbor_write_bool(ek_cbor_writer *to, bool value) { write_big_endian(to, value ? TRUE_BYTE : FALSE_BYTE, 0, 0); }

void ek_cbor_write_null(ek_cbor_writer *to) { write_big_endian(to, NULL_BYTE, 0, 0); }
