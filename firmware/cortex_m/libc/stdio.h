/* Formatting into a buffer: %d %i %u %x %s %c %p %% with l, ll, z, widths, 0, - and precision; no floating point. */
#ifndef EK_LIBC_STDIO_H
#define EK_LIBC_STDIO_H

#include <stdarg.h>
#include <stddef.h>

int snprintf(char *to, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *to, size_t room, const char *format, va_list arguments) __attribute__((format(printf, 3, 0)));

#endif
