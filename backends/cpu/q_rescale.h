/* Vectors of int32 sums to int8, a block of channels at a time: floor(sum · m / 2^shift + 1/2) + zero, clamped, exactly as
 * ek_rescale has it in 64 bits.
 *
 * Where shift ≥ 32 (x86: 33, factors below 1/4), only the product's upper half counts: with h = floor(sum · m / 2^32),
 * floor((sum · m + 2^(shift-1)) / 2^shift) = (h + 2^(shift-33)) >> (shift - 32). x86 multiplies the lanes with even and with odd
 * numbers apart, 32 × 32 → 64 bits, and shuffles the upper halves of both into one vector; NEON's sqdmulh makes them at once,
 * doubled. Other factors go the exact way.
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

#if defined(__AVX2__)
enum { EK_Q_LEAST_SHIFT = 33 };
typedef struct {
    ek_vi m, odd; /* the factors of odd lanes again, each in the lane before its own */
    ek_vi half, shift; /* of the upper halves of products */
} ek_q_vector_factors;
#elif defined(__aarch64__)
enum { EK_Q_LEAST_SHIFT = 32 };
typedef struct {
    int32x4_t m, shift; /* of the upper halves of doubled products; negative: to the right */
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

/* The upper halves of the products; of each four lanes the second and third change places. */
EK_INLINE ek_vi ek_q_multiply_high(ek_vi sum, const ek_q_vector_factors *f) {
    typedef uint64_t pairs __attribute__((vector_size(EK_LANES * 4)));
    ek_vi above = (ek_vi)((pairs)sum >> 32);
#if defined(__AVX512F__)
    ek_vi even = (ek_vi)__builtin_ia32_pmuldq512(sum, f->m), odd = (ek_vi)__builtin_ia32_pmuldq512(above, f->odd);
    return __builtin_shufflevector(even, odd, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#else
    ek_vi even = (ek_vi)__builtin_ia32_pmuldq256(sum, f->m), odd = (ek_vi)__builtin_ia32_pmuldq256(above, f->odd);
    return __builtin_shufflevector(even, odd, 1, 3, 9, 11, 5, 7, 13, 15);
#endif
}

/* Bytes in the order of channels, of vectors that were multiplied so and packed. */
EK_INLINE ek_q_bytes ek_q_in_order(ek_q_bytes y) {
#if defined(__AVX512F__)
    return __builtin_shufflevector(y, y, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 16, 18, 17, 19, 20, 22, 21, 23, 24, 26, 25, 27, 28, 30, 29, 31);
#else
    return __builtin_shufflevector(y, y, 0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
#endif
}

/* The lane whose result ek_q_multiply_high puts where lane `at` was. */
EK_INLINE int ek_q_lane(int at) { return (at & ~3) | (at & 1) << 1 | (at & 2) >> 1; }
#endif

/* Set the factor of one lane. */
EK_INLINE void ek_q_set(ek_q_factors *to, int vector, int lane, ek_factor f) {
    ek_q_vector_factors *v = &to->vector[vector];
#if defined(__AVX2__)
    int shift = f.m ? f.shift : 33;
    v->m[lane] = f.m;
    if (lane & 1) v->odd[lane - 1] = f.m, v->odd[lane] = 0;
    v->half[ek_q_lane(lane)] = (int32_t)1 << (shift - 33);
    v->shift[ek_q_lane(lane)] = shift - 32;
#elif defined(__aarch64__)
    v->m[lane] = f.m;
    v->shift[lane] = f.m ? 31 - f.shift : 0;
#else
    v->lane[lane] = f;
#endif
}

/* The block's results, and one bit a channel that was in range if they are wanted. */
EK_INLINE uint32_t ek_q_rescale(const ek_q_factors *f, int16_t zero, const ek_vi *sum, ek_q_bytes *y, int masked) {
#if defined(__AVX2__)
    ek_vi q[2];
    EK_UNROLL
    for (int i = 0; i < 2; i++) {
        const ek_q_vector_factors *v = &f->vector[i];
        q[i] = (ek_q_multiply_high(sum[i], v) + v->half) >> v->shift;
    }
#if defined(__AVX512F__)
    typedef int32_t fours __attribute__((vector_size(32)));
    ek_q_words words = ek_q_add_zero((ek_q_words)__builtin_ia32_packssdw512(q[0], q[1]), zero);
    ek_q_words clamped = __builtin_elementwise_min(__builtin_elementwise_max(words, (ek_q_words){0} - 128), (ek_q_words){0} + 127);
    fours mixed = (fours)__builtin_convertvector(clamped, ek_q_bytes);
    *y = ek_q_in_order((ek_q_bytes)__builtin_shufflevector(mixed, mixed, 0, 2, 4, 6, 1, 3, 5, 7));
    if (!masked) return 0;
    fours within = (fours)__builtin_convertvector((words >= -128) & (words <= 127), ek_q_bytes);
    return (uint32_t)__builtin_ia32_pmovmskb256(ek_q_in_order((ek_q_bytes)__builtin_shufflevector(within, within, 0, 2, 4, 6, 1, 3, 5, 7)));
#else
    typedef int16_t half __attribute__((vector_size(16)));
    ek_q_words words = ek_q_add_zero((ek_q_words)__builtin_ia32_packssdw256(q[0], q[1]), zero);
    half parts[2];
    memcpy(parts, &words, sizeof words);
    *y = ek_q_in_order((ek_q_bytes)__builtin_ia32_packsswb128(parts[0], parts[1]));
    if (!masked) return 0;
    ek_q_words within = (words >= -128) & (words <= 127);
    memcpy(parts, &within, sizeof within);
    return (uint32_t)__builtin_ia32_pmovmskb128(ek_q_in_order((ek_q_bytes)__builtin_ia32_packsswb128(parts[0], parts[1])));
#endif
#elif defined(__aarch64__)
    int16x8_t words[2];
    EK_UNROLL
    for (int i = 0; i < 2; i++) {
        int32x4_t q[2];
        EK_UNROLL
        for (int j = 0; j < 2; j++) {
            const ek_q_vector_factors *v = &f->vector[2 * i + j];
            q[j] = vrshlq_s32(vqdmulhq_s32(sum[2 * i + j], v->m), v->shift);
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
        int lane = i % EK_LANES;
        bits |= ek_clamp_to(bytes + i, ek_rescale(sum[i / EK_LANES][lane], f->vector[i / EK_LANES].lane[lane]) + zero) << i;
    }
    memcpy(y, bytes, sizeof bytes);
    return bits;
#endif
}

#endif
