/* What the runner uses of the C library's mathematics: what the compiler makes instructions of. */
#ifndef EK_LIBC_MATH_H
#define EK_LIBC_MATH_H

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define isfinite(x) __builtin_isfinite(x)
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define sqrtf(x) __builtin_sqrtf(x)
#define fabsf(x) __builtin_fabsf(x)
#define floorf(x) __builtin_floorf(x)
#define rintf(x) __builtin_rintf(x)
#define rint(x) __builtin_rint(x)

double ceil(double x);
double log(double x);

#endif
