#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char *to;
    size_t room, length; /* `length` counts also what did not fit */
} output;

typedef struct {
    bool left, zeros;
    int width, precision; /* -1: none */
    int longs;            /* 0 int, 1 long, 2 long long, 3 size_t */
} spec;

static void put(output *o, char c) {
    if (o->length + 1 < o->room)
        o->to[o->length] = c;
    o->length++;
}

static void put_padded(output *o, const spec *s, const char *text, size_t length, char pad) {
    size_t fill = s->width > (int)length ? (size_t)s->width - length : 0;
    for (size_t i = 0; !s->left && i < fill; i++)
        put(o, pad);
    for (size_t i = 0; i < length; i++)
        put(o, text[i]);
    for (size_t i = 0; s->left && i < fill; i++)
        put(o, ' ');
}

static void put_number(output *o, const spec *s, uint64_t value, unsigned base, bool negative) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    if (negative)
        digits[--at] = '-';
    put_padded(o, s, digits + at, sizeof digits - at, s->zeros && !negative ? '0' : ' ');
}

static int read_number(const char **at, va_list *arguments) {
    int value = 0;
    if (**at == '*') {
        (*at)++;
        return va_arg(*arguments, int);
    }
    while (**at >= '0' && **at <= '9')
        value = 10 * value + (*(*at)++ - '0');
    return value;
}

static spec read_spec(const char **at, va_list *arguments) {
    spec s = {.precision = -1};
    for (; **at == '-' || **at == '0'; (*at)++)
        *(**at == '-' ? &s.left : &s.zeros) = true;
    s.width = read_number(at, arguments);
    if (**at == '.') {
        (*at)++;
        s.precision = read_number(at, arguments);
    }
    for (; **at == 'l' || **at == 'z'; (*at)++)
        s.longs = **at == 'z' ? 3 : s.longs + 1;
    return s;
}

static uint64_t unsigned_argument(const spec *s, va_list *arguments) {
    if (s->longs == 2)
        return va_arg(*arguments, unsigned long long);
    return s->longs ? va_arg(*arguments, unsigned long) : va_arg(*arguments, unsigned);
}

static int64_t signed_argument(const spec *s, va_list *arguments) {
    if (s->longs == 2)
        return va_arg(*arguments, long long);
    return s->longs ? va_arg(*arguments, long) : va_arg(*arguments, int);
}

static void put_text(output *o, const spec *s, const char *text) {
    size_t length = 0;
    while ((s->precision < 0 || length < (size_t)s->precision) && text[length])
        length++;
    put_padded(o, s, text, length, ' ');
}

static void convert(output *o, char kind, const spec *s, va_list *arguments) {
    if (kind == 'd' || kind == 'i') {
        int64_t value = signed_argument(s, arguments);
        put_number(o, s, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, value < 0);
    } else if (kind == 'u' || kind == 'x') {
        put_number(o, s, unsigned_argument(s, arguments), kind == 'x' ? 16 : 10, false);
    } else if (kind == 'p') {
        put_number(o, s, (uintptr_t)va_arg(*arguments, void *), 16, false);
    } else if (kind == 's') {
        put_text(o, s, va_arg(*arguments, const char *));
    } else if (kind == 'c') {
        put(o, (char)va_arg(*arguments, int));
    } else {
        put(o, kind);
    }
}

int vsnprintf(char *to, size_t room, const char *format, va_list given) {
    output o = {to, room, 0};
    va_list arguments;
    va_copy(arguments, given);
    for (const char *at = format; *at; at++) {
        if (*at != '%') {
            put(&o, *at);
            continue;
        }
        at++;
        spec s = read_spec(&at, &arguments);
        if (!*at)
            break;
        convert(&o, *at, &s, &arguments);
    }
    va_end(arguments);
    if (room)
        to[o.length < room ? o.length : room - 1] = 0;
    return (int)o.length;
}

int snprintf(char *to, size_t room, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(to, room, format, arguments);
    va_end(arguments);
    return length;
}
