/* The DSP instructions of Armv7E-M that the int8 kernels are made of, and the same in plain C: the same bits on any processor. Sums
 * wrap around, as the instructions' do. */
#ifndef EK_DSP_H
#define EK_DSP_H

#include <stdint.h>

#define EK_DSP static inline __attribute__((always_inline))

/* Four int8 at any address. A memcpy would be a call: firmware is compiled as freestanding. */
typedef uint32_t ek_anywhere __attribute__((aligned(1), may_alias));
EK_DSP uint32_t ek_four(const int8_t *p) { return *(const ek_anywhere *)p; }

/* The low halves of a and b, a's being the low one; the high halves. */
EK_DSP uint32_t ek_lows(uint32_t a, uint32_t b) { return (a & 0xFFFF) | b << 16; }
EK_DSP uint32_t ek_highs(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xFFFF0000); }

/* sum + the high word of a · b. */
EK_DSP int32_t ek_add_product_high(int32_t a, int32_t b, int32_t sum) {
    return (int32_t)((uint32_t)((int64_t)a * b >> 32) + (uint32_t)sum); /* smmla */
}

EK_DSP int32_t ek_wrap_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }

#if defined(__ARM_FEATURE_DSP)

/* Bytes 0 and 2 as int16. */
EK_DSP uint32_t ek_even(uint32_t four) { return (uint32_t)__builtin_arm_sxtb16((int32_t)four); }
/* Bytes 1 and 3. */
EK_DSP uint32_t ek_odd(uint32_t four) { return (uint32_t)__builtin_arm_sxtb16((int32_t)(four >> 8 | four << 24)); }
/* sum + a.low · b.low + a.high · b.high. */
EK_DSP int32_t ek_both(uint32_t a, uint32_t b, int32_t sum) { return __builtin_arm_smlad((int32_t)a, (int32_t)b, sum); }
/* sum + a.low · b.low. */
EK_DSP int32_t ek_low(uint32_t a, uint32_t b, int32_t sum) { return __builtin_arm_smlabb((int32_t)a, (int32_t)b, sum); }
/* sum + a.high · b.low. */
EK_DSP int32_t ek_high(uint32_t a, uint32_t b, int32_t sum) { return __builtin_arm_smlatb((int32_t)a, (int32_t)b, sum); }
/* sum + a.low · b.high; sum + a.high · b.high. */
EK_DSP int32_t ek_low_high(uint32_t a, uint32_t b, int32_t sum) { return __builtin_arm_smlabt((int32_t)a, (int32_t)b, sum); }
EK_DSP int32_t ek_high_high(uint32_t a, uint32_t b, int32_t sum) { return __builtin_arm_smlatt((int32_t)a, (int32_t)b, sum); }
/* a + b, saturated to int32; a, saturated to int8. */
EK_DSP int32_t ek_saturated_add(int32_t a, int32_t b) { return __builtin_arm_qadd(a, b); }
EK_DSP int32_t ek_int8(int32_t a) { return __builtin_arm_ssat(a, 8); }
/* a, saturated to 9 bits; two of them, to int8. */
EK_DSP int32_t ek_int9(int32_t a) { return __builtin_arm_ssat(a, 9); }
EK_DSP uint32_t ek_two_int8(uint32_t two) { return (uint32_t)__builtin_arm_ssat16((int32_t)two, 8); }

#else

EK_DSP uint32_t ek_even(uint32_t four) { return ek_lows((uint32_t)(int8_t)four, (uint32_t)(int8_t)(four >> 16)); }
EK_DSP uint32_t ek_odd(uint32_t four) { return ek_even(four >> 8); }
EK_DSP int32_t ek_low(uint32_t a, uint32_t b, int32_t sum) { return ek_wrap_add(sum, (int16_t)a * (int16_t)b); }
EK_DSP int32_t ek_high(uint32_t a, uint32_t b, int32_t sum) { return ek_low(a >> 16, b, sum); }
EK_DSP int32_t ek_low_high(uint32_t a, uint32_t b, int32_t sum) { return ek_low(a, b >> 16, sum); }
EK_DSP int32_t ek_high_high(uint32_t a, uint32_t b, int32_t sum) { return ek_low(a >> 16, b >> 16, sum); }
EK_DSP int32_t ek_both(uint32_t a, uint32_t b, int32_t sum) { return ek_low(a >> 16, b >> 16, ek_low(a, b, sum)); }
EK_DSP int32_t ek_saturated_add(int32_t a, int32_t b) {
    int64_t sum = (int64_t)a + b;
    return (int32_t)(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
}
EK_DSP int32_t ek_int8(int32_t a) { return a < -128 ? -128 : a > 127 ? 127 : a; }
EK_DSP int32_t ek_int9(int32_t a) { return a < -256 ? -256 : a > 255 ? 255 : a; }
EK_DSP uint32_t ek_two_int8(uint32_t two) {
    return ek_lows((uint32_t)ek_int8((int16_t)two), (uint32_t)ek_int8((int16_t)(two >> 16)));
}

#endif

#endif
