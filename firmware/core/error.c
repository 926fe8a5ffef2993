/* The line for people that goes with a status. */
#include <stdarg.h>
#include <stdio.h>

#include "status.h"

ek_status ek_fail(ek_error *error, ek_status status, const char *format, ...)
{
    va_list arguments;
    error->status = status;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return status;
}
