/* exp, log, tanh, the normal distribution function, and all elementwise functions with their derivatives, on
 * vectors.
 *
 * Method: range reduction to a small interval and a minimax polynomial there (Remez exchange in 60 digits,
 * coefficients rounded to float), as in Muller, "Elementary Functions", 3rd ed., chapters 3 and 9. The polynomials'
 * own relative errors are below 2^-27, so rounding rules: each function names its largest error in units in the last
 * place, as measured over all of float32's range (results below 2^-119: in units of 2^-119). NaN passes; infinite
 * and denormal arguments and results are right. */
#ifndef EK_VECMATH_H
#define EK_VECMATH_H

#include "../../firmware/core/ops_gen.h"
#include "simd.h"

EK_INLINE ek_vi ek_bits(ek_vf v) { return (ek_vi)v; }
EK_INLINE ek_vf ek_abs(ek_vf v) { return (ek_vf)(ek_bits(v) & 0x7FFFFFFF); }
EK_INLINE ek_vf ek_with_sign(ek_vf magnitude, ek_vf sign) {
    return (ek_vf)(ek_bits(magnitude) | (ek_bits(sign) & INT32_MIN));
}

EK_INLINE ek_vf ek_sqrt(ek_vf v) {
    EK_UNROLL
    for (int i = 0; i < EK_LANES; i++) v[i] = __builtin_sqrtf(v[i]);
    return v;
}

/* 2^n for integers n in -126 … 127. */
EK_INLINE ek_vf ek_power_of_two(ek_vi n) { return (ek_vf)((n + 127) << 23); }

/* exp(x + tail) with |tail| much below |x|; 1 unit. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite: ln 2 in two
 * parts, of which n times the first is exact); exp(r) = 1 + r + r^2 Q(r); 2^n in two factors, so that denormal
 * results round once. */
EK_INLINE ek_vf ek_exp_of_sum(ek_vf x, ek_vf tail) {
    x = ek_at_most(ek_at_least(x, ek_splat(-105.0f)), ek_splat(90.0f));
    const float round = 0x1.8p23f; /* adding it leaves the nearest integer in the low bits */
    ek_vf shifted = x * 0x1.715476p+0f + round;
    ek_vf n = shifted - round;
    ek_vi whole = ek_bits(shifted) - ek_bits(ek_splat(round));
    ek_vf r = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f + tail;
    ek_vf q = r * 1.3813144760206342e-3f + 8.369418792426586e-3f;
    q = q * r + 4.166845604777336e-2f;
    q = q * r + 1.6666515171527863e-1f;
    q = q * r + 4.999999403953552e-1f;
    ek_vf e = q * (r * r) + r + 1.0f;
    ek_vi half = whole >> 1;
    return e * ek_power_of_two(half) * ek_power_of_two(whole - half);
}

EK_INLINE ek_vf ek_exp(ek_vf x) { return ek_exp_of_sum(x, (ek_vf){0}); }

/* ln x; 1 unit. x = 2^e m, sqrt(1/2) <= m < sqrt 2; with f = m - 1: ln m = f - f^2/2 + f^3 P(f). */
EK_INLINE ek_vf ek_log(ek_vf x) {
    ek_vi denormal = x < 0x1p-126f;
    ek_vf scaled = ek_select(denormal, x * 0x1p23f, x);
    ek_vi offset = ek_bits(scaled) - 0x3F3504F3; /* the bits of sqrt(1/2) */
    ek_vi exponent = (offset >> 23) - (denormal & 23);
    ek_vf f = (ek_vf)((offset & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
    ek_vf e = __builtin_convertvector(exponent, ek_vf);
    ek_vf p = f * -7.634502649307251e-2f + 1.276157796382904e-1f;
    p = p * f - 1.3160181045532227e-1f;
    p = p * f + 1.4201757311820984e-1f;
    p = p * f - 1.6623356938362122e-1f;
    p = p * f + 2.0001226663589478e-1f;
    p = p * f - 2.500081956386566e-1f;
    p = p * f + 3.333333134651184e-1f;
    ek_vf square = f * f;
    ek_vf y = p * (square * f) + e * 0x1.7f7d1cp-20f - square * 0.5f + f + e * 0x1.62e4p-1f;
    y = ek_select(x < __builtin_inff(), y, x);                   /* +inf and NaN */
    y = ek_select(x == 0.0f, ek_splat(-__builtin_inff()), y);
    return ek_select(x < 0.0f, ek_splat(__builtin_nanf("")), y);
}

/* 1 / (1 + exp(-x)); 2.3 units. Through exp(-|x|), which does not overflow. */
EK_INLINE ek_vf ek_sigmoid(ek_vf x) {
    ek_vf e = ek_exp(-ek_abs(x));
    return ek_select(x < 0.0f, e, ek_splat(1.0f)) / (e + 1.0f);
}

/* tanh x; 1.3 units. x + x^3 P(x^2) near 0, else 1 - 2 / (exp(2|x|) + 1). */
EK_INLINE ek_vf ek_tanh(ek_vf x) {
    ek_vf a = ek_abs(x), z = a * a;
    ek_vf p = z * -5.704986862838268e-3f + 2.06390880048275e-2f;
    p = p * z - 5.373971536755562e-2f;
    p = p * z + 1.3331441581249237e-1f;
    p = p * z - 3.333328068256378e-1f;
    ek_vf near = p * z * a + a;
    ek_vf far = 1.0f - 2.0f / (ek_exp(a + a) + 1.0f);
    return ek_with_sign(ek_select(a < 0.625f, near, far), x);
}

/* The standard normal distribution: `below` is P(X < x), `density` its derivative. `below` is within 6 units, in the
 * lower tail too: for a = |x|, P(X < -a) = exp(-a^2/2) t S(t) with t = 1 / (1 + 0.3 a), S a polynomial (the form of
 * Hastings, "Approximations for Digital Computers", 1955). a^2 is made of two exact parts, since exp turns its
 * absolute error into a relative one. */
typedef struct {
    ek_vf below, density;
} ek_normal;

EK_INLINE ek_normal ek_normal_of(ek_vf x) {
    ek_vf a = ek_at_most(ek_abs(x), ek_splat(16.0f));
    ek_vf high = (ek_vf)(ek_bits(a) & (int32_t)0xFFFFF000), low = a - high;
    ek_vf e = ek_exp_of_sum(high * high * -0.5f, (a + high) * low * -0.5f);
    ek_vf t = 1.0f / (a * 0.3f + 1.0f);
    ek_vf s = t * -2.0629990845918655e-2f + 1.1247226595878601e-1f;
    s = s * t - 2.2830301523208618e-1f;
    s = s * t + 1.919085830450058e-1f;
    s = s * t - 7.953111082315445e-2f;
    s = s * t + 9.621724486351013e-2f;
    s = s * t + 7.836775481700897e-2f;
    s = s * t + 1.1024035513401031e-1f;
    s = s * t + 1.1957118660211563e-1f;
    s = s * t + 1.1968672275543213e-1f;
    ek_vf tail = e * (t * s);
    return (ek_normal){ek_select(x < 0.0f, tail, 1.0f - tail), e * 0x1.988454p-2f};
}

EK_INLINE ek_vf ek_clamp(ek_vf x, float low, float high) {
    return ek_at_most(ek_at_least(x, ek_splat(low)), ek_splat(high));
}

EK_INLINE ek_vf ek_hardsigmoid(ek_vf x) { return ek_clamp(x + 3.0f, 0.0f, 6.0f) / 6.0f; }

/* fn(x): edgekit/graph/ops/function.py, `apply`. `fn` is a constant where this is called. */
EK_INLINE ek_vf ek_apply(int fn, ek_vf x) {
    switch (fn) {
    case EK_FN_RELU: return ek_at_least(x, (ek_vf){0});
    case EK_FN_RELU6: return ek_clamp(x, 0.0f, 6.0f);
    case EK_FN_HARDSWISH: return x * ek_hardsigmoid(x);
    case EK_FN_HARDSIGMOID: return ek_hardsigmoid(x);
    case EK_FN_SIGMOID: return ek_sigmoid(x);
    case EK_FN_SILU: return x * ek_sigmoid(x);
    case EK_FN_TANH: return ek_tanh(x);
    case EK_FN_GELU: return x * ek_normal_of(x).below;
    case EK_FN_EXP: return ek_exp(x);
    case EK_FN_LOG: return ek_log(x);
    case EK_FN_SQRT: return ek_sqrt(x);
    case EK_FN_RSQRT: return 1.0f / ek_sqrt(x);
    case EK_FN_NEG: return -x;
    case EK_FN_ABS: return ek_abs(x);
    case EK_FN_RECIPROCAL: return 1.0f / x;
    case EK_FN_SQUARE: return x * x;
    default: return x;
    }
}

/* Where fn' is 1, from fn's result: relu and relu6. */
EK_INLINE ek_vi ek_mask_of(int fn, ek_vf y) { return fn == EK_FN_RELU6 ? (y > 0.0f) & (y < 6.0f) : y > 0.0f; }

/* dy * fn'(saved): edgekit/graph/ops/function.py, `derivative`, which also says what is saved. A blocked gradient is
 * 0, whatever dy is. */
EK_INLINE ek_vf ek_derive(int fn, ek_vf dy, ek_vf saved) {
    ek_vf zero = {0};
    switch (fn) {
    case EK_FN_RELU:
    case EK_FN_RELU6: return ek_select(ek_mask_of(fn, saved), dy, zero);
    case EK_FN_HARDSWISH:
        return ek_select(saved <= -3.0f, zero, ek_select(saved < 3.0f, dy * (saved / 3.0f + 0.5f), dy));
    case EK_FN_HARDSIGMOID: return ek_select((saved > 0.0f) & (saved < 1.0f), dy / 6.0f, zero);
    case EK_FN_SIGMOID: return dy * (saved * (1.0f - saved));
    case EK_FN_SILU: {
        ek_vf s = ek_sigmoid(saved);
        return dy * (s * (1.0f + saved * ek_sigmoid(-saved)));
    }
    case EK_FN_TANH: return dy * (1.0f - saved * saved);
    case EK_FN_GELU: {
        ek_normal normal = ek_normal_of(saved);
        return dy * (normal.below + saved * normal.density);
    }
    case EK_FN_EXP: return dy * saved;
    case EK_FN_LOG: return dy / saved;
    case EK_FN_SQRT: return dy * (0.5f / saved);
    case EK_FN_RSQRT: return dy * (-0.5f * saved * saved * saved);
    case EK_FN_NEG: return -dy;
    case EK_FN_ABS:
        return dy * ek_select(saved > 0.0f, ek_splat(1.0f), ek_select(saved < 0.0f, ek_splat(-1.0f), saved));
    case EK_FN_RECIPROCAL: return dy * -(saved * saved);
    case EK_FN_SQUARE: return dy * (2.0f * saved);
    default: return dy;
    }
}

/* F(NAME) for every function. */
#define EK_FUNCTIONS(F) \
    F(IDENTITY) F(RELU) F(RELU6) F(HARDSWISH) F(HARDSIGMOID) F(SIGMOID) F(SILU) F(TANH) F(GELU) F(EXP) F(LOG) F(SQRT) \
    F(RSQRT) F(NEG) F(ABS) F(RECIPROCAL) F(SQUARE)

#endif
