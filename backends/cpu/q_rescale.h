/* Vectors of int32 sums to int8, a block of channels at a time: floor(sum · m / 2^shift + 1/2) + zero, clamped, exactly as
 * ek_rescale has it in 64 bits.
 *
 * x86 multiplies the lanes with even and with odd numbers apart, 32 × 32 → 64 bits, adds one half and takes the upper 32 bits, which
 * are then shifted on: AVX2 has no arithmetic shift of 64. Factors below 1/2 have shifts of 32 and more; others go the exact way.
 * The zero point is added to int16 that saturate, which changes nothing: what saturates is clamped. */
#ifndef EK_Q_RESCALE_H
#define EK_Q_RESCALE_H

#include "quant.h"

#if defined(__aarch64__)
#include <arm_neon.h>
enum { EK_Q_VECTORS = 4 };
#else
enum { EK_Q_VECTORS = 2 };
#endif
enum { EK_Q_BLOCK = EK_Q_VECTORS * EK_LANES }; /* channels: 16; 32 with AVX-512, 8 in the plain set */

typedef int8_t ek_q_bytes __attribute__((vector_size(EK_Q_BLOCK)));
typedef int16_t ek_q_words __attribute__((vector_size(EK_Q_BLOCK * 2)));
typedef int64_t ek_vl __attribute__((vector_size(EK_LANES * 4)));
typedef uint64_t ek_vul __attribute__((vector_size(EK_LANES * 4)));

/* The channel in a block of a lane of a vector: as packing two vectors of int32 into one of int16 puts them. */
EK_INLINE int ek_q_channel(int vector, int lane) { return lane / 4 * 8 + vector * 4 + lane % 4; }

#if defined(__AVX2__)
enum { EK_Q_LEAST_SHIFT = 32 };
typedef struct {
    ek_vi m[2]; /* of even lanes; of odd ones, each in the lane before its own */
    ek_vl half[2];
    ek_vi shift; /* less 32 */
} ek_q_vector_factors;
#elif defined(__aarch64__)
enum { EK_Q_LEAST_SHIFT = 1 };
typedef struct {
    int32x4_t m;
    int64x2_t shift[2]; /* negative: to the right */
} ek_q_vector_factors;
#else
enum { EK_Q_LEAST_SHIFT = 1 };
typedef struct {
    ek_factor lane[EK_LANES];
} ek_q_vector_factors;
#endif

typedef struct {
    ek_q_vector_factors vector[EK_Q_VECTORS];
} ek_q_factors;

#if defined(__AVX2__)
/* Saturated int16 plus the zero point. Before clang 16 there is no builtin that all versions have; results are clamped anyway. */
EK_INLINE ek_q_words ek_q_add_zero(ek_q_words words, int16_t zero) {
    ek_q_words zeros = (ek_q_words){0} + zero;
#if __has_builtin(__builtin_elementwise_add_sat)
    return __builtin_elementwise_add_sat(words, zeros);
#else
    ek_q_words most = (ek_q_words){0} + 512, low = words > most, high = words < -most;
    return ((words & ~(low | high)) | (most & low) | (-most & high)) + zeros;
#endif
}
#endif

/* Set the factor of one lane. */
EK_INLINE void ek_q_set(ek_q_factors *to, int vector, int lane, ek_factor f) {
    ek_q_vector_factors *v = &to->vector[vector];
#if defined(__AVX2__)
    int odd = lane & 1, shift = f.m ? f.shift : 32;
    v->m[odd][lane - odd] = f.m;
    v->m[odd][lane - odd + 1] = 0;
    v->half[odd][lane / 2] = (int64_t)1 << (shift - 1);
    v->shift[lane] = shift - 32;
#elif defined(__aarch64__)
    v->m[lane] = f.m;
    v->shift[lane / 2][lane % 2] = -f.shift;
#else
    v->lane[lane] = f;
#endif
}

/* The block's results, and one bit a channel that was in range if they are wanted. */
EK_INLINE uint32_t ek_q_rescale(const ek_q_factors *f, int16_t zero, const ek_vi *sum, ek_q_bytes *y, int masked) {
#if defined(__AVX2__)
    const ek_vi odd_lanes = (ek_lane_numbers() & 1) != 0;
    ek_vi q[2];
    EK_UNROLL
    for (int i = 0; i < 2; i++) {
        const ek_q_vector_factors *v = &f->vector[i];
        ek_vi high = (ek_vi)((ek_vul)sum[i] >> 32);
#if defined(__AVX512F__)
        ek_vl even = (ek_vl)__builtin_ia32_pmuldq512(sum[i], v->m[0]), odd = (ek_vl)__builtin_ia32_pmuldq512(high, v->m[1]);
#else
        ek_vl even = (ek_vl)__builtin_ia32_pmuldq256(sum[i], v->m[0]), odd = (ek_vl)__builtin_ia32_pmuldq256(high, v->m[1]);
#endif
        ek_vi left = (ek_vi)((ek_vul)(even + v->half[0]) >> 32), right = (ek_vi)(odd + v->half[1]);
        q[i] = ((left & ~odd_lanes) | (right & odd_lanes)) >> v->shift;
    }
#if defined(__AVX512F__)
    ek_q_words words = ek_q_add_zero((ek_q_words)__builtin_ia32_packssdw512(q[0], q[1]), zero);
    ek_q_words clamped = __builtin_elementwise_min(__builtin_elementwise_max(words, (ek_q_words){0} - 128), (ek_q_words){0} + 127);
    *y = __builtin_convertvector(clamped, ek_q_bytes);
    return masked ? __builtin_ia32_cvtw2mask512((words >= -128) & (words <= 127)) : 0;
#else
    typedef int16_t half __attribute__((vector_size(16)));
    ek_q_words words = ek_q_add_zero((ek_q_words)__builtin_ia32_packssdw256(q[0], q[1]), zero);
    half parts[2];
    memcpy(parts, &words, sizeof words);
    *y = (ek_q_bytes)__builtin_ia32_packsswb128(parts[0], parts[1]);
    if (!masked) return 0;
    ek_q_words within = (words >= -128) & (words <= 127);
    memcpy(parts, &within, sizeof within);
    return (uint32_t)__builtin_ia32_pmovmskb128(__builtin_ia32_packsswb128(parts[0], parts[1]));
#endif
#elif defined(__aarch64__)
    int16x8_t words[2];
    EK_UNROLL
    for (int i = 0; i < 2; i++) {
        int32x4_t q[2];
        EK_UNROLL
        for (int j = 0; j < 2; j++) {
            const ek_q_vector_factors *v = &f->vector[2 * i + j];
            int32x4_t s = sum[2 * i + j];
            int64x2_t low = vrshlq_s64(vmull_s32(vget_low_s32(s), vget_low_s32(v->m)), v->shift[0]);
            int64x2_t high = vrshlq_s64(vmull_high_s32(s, v->m), v->shift[1]);
            q[j] = vqmovn_high_s64(vqmovn_s64(low), high);
        }
        words[i] = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(q[0]), q[1]), vdupq_n_s16(zero));
    }
    *y = vqmovn_high_s16(vqmovn_s16(words[0]), words[1]);
    if (!masked) return 0;
    uint32_t bits = 0;
    const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
    EK_UNROLL
    for (int i = 0; i < 2; i++) {
        uint16x8_t within = vandq_u16(vcgeq_s16(words[i], vdupq_n_s16(-128)), vcleq_s16(words[i], vdupq_n_s16(127)));
        bits |= (uint32_t)vaddvq_u16(vandq_u16(within, bit)) << (8 * i);
    }
    return bits;
#else
    int8_t bytes[EK_Q_BLOCK];
    uint32_t bits = 0;
    (void)masked;
    for (int i = 0; i < EK_Q_BLOCK; i++) {
        int lane = i % EK_LANES, place = ek_q_channel(i / EK_LANES, lane);
        bits |= ek_clamp_to(bytes + place, ek_rescale(sum[i / EK_LANES][lane], f->vector[i / EK_LANES].lane[lane]) + zero) << place;
    }
    memcpy(y, bytes, sizeof bytes);
    return bits;
#endif
}

#endif
