#include <math.h>
#include <stdint.h>
#include <string.h>

double ceil(double x) {
    if (!(__builtin_fabs(x) < 0x1p52)) /* whole already, or no number */
        return x;
    double whole = (double)(int64_t)x;
    return whole < x ? whole + 1 : whole;
}

/* x = 2^e m with sqrt(1/2) <= m < sqrt 2; ln m = 2 artanh s = 2 (s + s^3/3 + s^5/5 …), s = (m - 1) / (m + 1), |s| < 0.172: twelve
 * terms leave 2^-62. ln 2 is in two parts, of which e times the first is exact (Cody and Waite). */
double log(double x) {
    enum { TERMS = 12 };
    uint64_t bits;
    if (!(x > 0) || x > 0x1.fffffffffffffp1023)
        return x == 0 ? -__builtin_inf() : x < 0 ? __builtin_nan("") : x;
    double scaled = x < 0x1p-1022 ? x * 0x1p54 : x;
    memcpy(&bits, &scaled, sizeof bits);
    int64_t offset = (int64_t)(bits - 0x3FE6A09E667F3BCDull); /* the bits of sqrt(1/2) */
    double e = (double)((offset >> 52) - (x < 0x1p-1022 ? 54 : 0));
    bits = ((uint64_t)offset & 0x000FFFFFFFFFFFFFull) + 0x3FE6A09E667F3BCDull;
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    for (int k = TERMS; k >= 1; k--)
        sum = (sum + 1.0 / (2 * k + 1)) * square;
    return e * 0x1.62e42fefa38p-1 + (2 * s + (2 * s * sum + e * 0x1.ef35793c7673p-45));
}

/* To the nearest integer, halves to even, as additions round: there are no fractions from 2^52 on. */
#undef rint
double rint(double x);

double rint(double x) {
    double size = __builtin_fabs(x);
    return size < 0x1p52 ? __builtin_copysign(size + 0x1p52 - 0x1p52, x) : x;
}
