#include "fields.h"

#include <inttypes.h>
#include <string.h>

static ek_status bad_key(ek_error *error, const char *key, const char *type) {
    return ek_fail(error, EK_BAD_REQUEST, "\"%s\" is missing or is no %s", key, type);
}

ek_status ek_read_path(const ek_cbor *map, const char *key, bool required, ek_path *path, ek_error *error) {
    ek_cbor value;
    const char *text;
    size_t length;
    path->text[0] = 0;
    if (!ek_cbor_find(map, key, &value))
        return required ? bad_key(error, key, "text") : EK_OK;
    if (!ek_cbor_text(&value, &text, &length))
        return bad_key(error, key, "text");
    if (length == 0 || length >= sizeof path->text || memchr(text, 0, length))
        return ek_fail(error, EK_BAD_REQUEST, "\"%s\" is empty, longer than %d bytes, or holds a zero byte", key,
                       EK_PATH_BYTES - 1);
    memcpy(path->text, text, length);
    path->text[length] = 0;
    return EK_OK;
}

ek_status ek_read_uint(const ek_cbor *map, const char *key, bool required, uint64_t most, uint64_t *value, ek_error *error) {
    ek_cbor item;
    if (!ek_cbor_find(map, key, &item))
        return required ? bad_key(error, key, "unsigned integer") : EK_OK;
    if (!ek_cbor_uint(&item, value))
        return bad_key(error, key, "unsigned integer");
    if (*value > most)
        return ek_fail(error, EK_BAD_REQUEST, "\"%s\" is %" PRIu64 ", at most %" PRIu64 " is possible", key, *value, most);
    return EK_OK;
}

ek_status ek_read_session(const ek_cbor *map, bool required, ek_session_id *id, ek_error *error) {
    ek_path text;
    id->text[0] = 0;
    if (ek_read_path(map, "session", required, &text, error) != EK_OK)
        return error->status;
    size_t length = strlen(text.text);
    if (length == 0)
        return EK_OK;
    if (!ek_session_id_valid(text.text, length))
        return ek_fail(error, EK_BAD_REQUEST, "\"session\" is not 1 to %d of A-Z a-z 0-9 . _ - beginning without a dot",
                       EK_SESSION_ID);
    memcpy(id->text, text.text, length + 1);
    return EK_OK;
}

ek_status ek_read_bytes(const ek_cbor *map, const char *key, uint8_t *to, size_t size, ek_error *error) {
    ek_cbor item;
    const uint8_t *bytes;
    size_t length;
    if (!ek_cbor_find(map, key, &item) || !ek_cbor_bytes(&item, &bytes, &length) || length != size)
        return bad_key(error, key, "byte string of the right length");
    memcpy(to, bytes, size);
    return EK_OK;
}

ek_status ek_read_bool(const ek_cbor *map, const char *key, bool required, bool *value, ek_error *error) {
    ek_cbor item;
    *value = false;
    if (!ek_cbor_find(map, key, &item))
        return required ? bad_key(error, key, "boolean") : EK_OK;
    return ek_cbor_bool(&item, value) ? EK_OK : bad_key(error, key, "boolean");
}

void ek_put_uint(ek_cbor_writer *to, const char *key, uint64_t value) {
    ek_cbor_write_text(to, key);
    ek_cbor_write_uint(to, value);
}

void ek_put_text(ek_cbor_writer *to, const char *key, const char *value) {
    ek_cbor_write_text(to, key);
    ek_cbor_write_text(to, value);
}

void ek_put_text_or_null(ek_cbor_writer *to, const char *key, const char *value) {
    ek_cbor_write_text(to, key);
    if (value && *value)
        ek_cbor_write_text(to, value);
    else
        ek_cbor_write_null(to);
}

void ek_put_uint_or_null(ek_cbor_writer *to, const char *key, bool known, uint64_t value) {
    ek_cbor_write_text(to, key);
    if (known)
        ek_cbor_write_uint(to, value);
    else
        ek_cbor_write_null(to);
}
