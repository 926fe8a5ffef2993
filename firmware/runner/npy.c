#include "npy.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The header's text: a Python dict literal of exactly descr, fortran_order and shape, in any order. */
typedef struct {
    const char *at, *end;
} cursor;

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t'))
        c->at++;
}

static bool take(cursor *c, char wanted) {
    skip_space(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word) {
    skip_space(c);
    size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

/* A quoted string without escapes. */
static bool take_string(cursor *c, char *to, size_t room) {
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    char quote = *c->at++;
    size_t length = 0;
    while (c->at < c->end && *c->at != quote) {
        if (*c->at < ' ' || *c->at > '~' || *c->at == '\\' || length + 1 >= room)
            return false;
        to[length++] = *c->at++;
    }
    to[length] = 0;
    return take(c, quote);
}

static bool take_number(cursor *c, uint64_t *value) {
    skip_space(c);
    const char *first = c->at;
    for (*value = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        uint64_t digit = (uint64_t)(*c->at - '0');
        if (*value > (UINT64_MAX - digit) / 10)
            return false;
        *value = *value * 10 + digit;
    }
    return c->at > first;
}

/* "()", "(3,)", "(3, 4)": a comma after every number but the last of several. */
static bool take_shape(cursor *c, ek_npy *array) {
    if (!take(c, '('))
        return false;
    array->rank = 0;
    while (!take(c, ')')) {
        if (array->rank == EK_NPY_RANK || !take_number(c, &array->dim[array->rank]))
            return false;
        array->rank++;
        bool comma = take(c, ',');
        if (!comma)
            return array->rank > 1 && take(c, ')');
    }
    return true;
}

static bool take_dict(cursor *c, char *descr, size_t room, bool *fortran, ek_npy *array) {
    enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
    int seen = 0;
    if (!take(c, '{'))
        return false;
    while (!take(c, '}')) {
        char key[16];
        int bit;
        if (!take_string(c, key, sizeof key) || !take(c, ':'))
            return false;
        if (strcmp(key, "descr") == 0) {
            bit = DESCR;
            if (!take_string(c, descr, room))
                return false;
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = ORDER;
            *fortran = take_word(c, "True");
            if (!*fortran && !take_word(c, "False"))
                return false;
        } else if (strcmp(key, "shape") == 0) {
            bit = SHAPE;
            if (!take_shape(c, array))
                return false;
        } else {
            return false;
        }
        if (seen & bit)
            return false;
        seen |= bit;
        if (!take(c, ',') && !take(c, '}'))
            return false;
        if (c->at[-1] == '}')
            break;
    }
    skip_space(c);
    return seen == (DESCR | ORDER | SHAPE) && c->at == c->end;
}

static const struct {
    char name[3];
    uint8_t bytes;
} types[] = {[EK_NPY_F4] = {"f4", 4}, [EK_NPY_F8] = {"f8", 8}, [EK_NPY_U1] = {"u1", 1}, [EK_NPY_I1] = {"i1", 1},
             [EK_NPY_I2] = {"i2", 2}, [EK_NPY_I4] = {"i4", 4}, [EK_NPY_I8] = {"i8", 8}};

const char *ek_npy_type_name(ek_npy_type type) { return types[type].name; }

static ek_status set_type(ek_npy *array, const char *descr, ek_error *error) {
    if (descr[0] == '>')
        return ek_fail(error, EK_BAD_DATA, "dtype %s is big-endian; save it little-endian", descr);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        bool order = descr[0] == '<' || (types[i].bytes == 1 && descr[0] == '|');
        if (order && strcmp(descr + 1, types[i].name) == 0) {
            array->type = (ek_npy_type)i;
            array->item_bytes = types[i].bytes;
            return EK_OK;
        }
    }
    return ek_fail(error, EK_BAD_DATA, "dtype %s is none of f4, f8, u1, i1, i2, i4, i8", descr);
}

ek_status ek_npy_open(ek_npy *array, const uint8_t *bytes, size_t size, ek_error *error) {
    if (size < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return ek_fail(error, EK_BAD_DATA, "is no .npy file (its first bytes are not \\x93NUMPY)");
    if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0)
        return ek_fail(error, EK_BAD_DATA, "has .npy version %d.%d; known are 1.0 to 3.0", bytes[6], bytes[7]);
    size_t start = bytes[6] == 1 ? 10 : 12;
    if (size < start)
        return ek_fail(error, EK_BAD_DATA, "is cut off in its header");
    uint64_t length = bytes[8] | (uint64_t)bytes[9] << 8;
    if (start == 12)
        length |= (uint64_t)bytes[10] << 16 | (uint64_t)bytes[11] << 24;
    if (length > size - start)
        return ek_fail(error, EK_BAD_DATA, "is cut off in its header");

    cursor c = {(const char *)bytes + start, (const char *)bytes + start + length};
    char descr[16];
    bool fortran = false;
    if (!take_dict(&c, descr, sizeof descr, &fortran, array))
        return ek_fail(error, EK_BAD_DATA, "has a header that is not numpy's (descr, fortran_order, shape; at most %d axes)",
                       EK_NPY_RANK);
    if (fortran)
        return ek_fail(error, EK_BAD_DATA, "is in Fortran order; save numpy.ascontiguousarray(x)");
    if (set_type(array, descr, error) != EK_OK)
        return error->status;

    uint64_t expected = array->item_bytes, found = size - start - length;
    for (uint32_t i = 0; i < array->rank; i++)
        if (__builtin_mul_overflow(expected, array->dim[i], &expected))
            return ek_fail(error, EK_BAD_DATA, "has a shape of more than 2^64 bytes");
    if (expected != found)
        return ek_fail(error, EK_BAD_DATA, "has %" PRIu64 " bytes of data where its shape takes %" PRIu64, found, expected);
    array->data = bytes + start + length;
    return EK_OK;
}

void ek_npy_header(uint8_t *to, uint32_t dtype, const uint32_t *dim, uint32_t rank) {
    enum { PREFIX = 10, TEXT = EK_NPY_HEADER_BYTES - PREFIX };
    const char *descr = dtype == EK_F32 ? "<f4" : dtype == EK_I32 ? "<i4" : dtype == EK_I8 ? "|i1" : "|u1";
    char text[TEXT + 1];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (uint32_t i = 0; i < rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%" PRIu32 "%s", i ? ", " : "", dim[i], rank == 1 ? "," : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    memset(text + n, ' ', (size_t)(TEXT - n));
    text[TEXT - 1] = '\n';
    memcpy(to, "\x93NUMPY\x01\x00", 8);
    to[8] = TEXT & 0xFF;
    to[9] = TEXT >> 8;
    memcpy(to + PREFIX, text, TEXT);
}
