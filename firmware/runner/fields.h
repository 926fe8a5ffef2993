/* The keys of requests and responses. Reading: a missing or mistyped key is BAD_REQUEST. */
#ifndef EK_FIELDS_H
#define EK_FIELDS_H

#include "kept.h"

/* "" where the key is absent and not required. */
ek_status ek_read_path(const ek_cbor *map, const char *key, bool required, ek_path *path, ek_error *error);

/* `value` keeps what it holds where the key is absent and not required. */
ek_status ek_read_uint(const ek_cbor *map, const char *key, bool required, uint64_t most, uint64_t *value, ek_error *error);

/* Exactly `size` bytes. */
ek_status ek_read_bytes(const ek_cbor *map, const char *key, uint8_t *to, size_t size, ek_error *error);

ek_status ek_read_bool(const ek_cbor *map, const char *key, bool required, bool *value, ek_error *error);

/* "session"; "" where it is absent and not required. */
ek_status ek_read_session(const ek_cbor *map, bool required, ek_session_id *id, ek_error *error);

void ek_put_uint(ek_cbor_writer *to, const char *key, uint64_t value);
void ek_put_text(ek_cbor_writer *to, const char *key, const char *value);
void ek_put_text_or_null(ek_cbor_writer *to, const char *key, const char *value); /* NULL and "" are null */
void ek_put_uint_or_null(ek_cbor_writer *to, const char *key, bool known, uint64_t value);

#endif
