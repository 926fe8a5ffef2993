#include "log.h"

#include <stdarg.h>
#include <stdio.h>

enum { LOG_BYTES = 1024, LINE = 160 };

static uint8_t bytes[LOG_BYTES];
ek_ring ek_log_ring = {.bytes = bytes, .size = LOG_BYTES};

void ek_log(const char *format, ...) {
    char line[LINE];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    if (ek_ring_room(&ek_log_ring) < (uint32_t)length)
        return;
    for (int i = 0; i < length; i++)
        ek_ring_put(&ek_log_ring, (uint8_t)line[i]);
}
