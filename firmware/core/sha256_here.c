/* SHA-256 by the instructions that x86-64 and 64-bit Arm processors may have for it: several times as fast as the plain way. */
#include "sha256.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* The instructions keep the state as (a b e f) and (c d g h), from the highest lane down. */
__attribute__((target("sha,sse4.1"))) static void mix_sha_ni(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i *at = (__m128i *)state;
    __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(at), 0xb1), efgh = _mm_shuffle_epi32(_mm_loadu_si128(at + 1), 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; count > 0; blocks += 64, count--) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)blocks + i), big_endian);
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++) {
            __m128i *w0 = &w[r % 4], w1 = w[(r + 1) % 4], w2 = w[(r + 2) % 4], w3 = w[(r + 3) % 4];
            __m128i sum = _mm_add_epi32(*w0, _mm_loadu_si128((const __m128i *)ek_sha256_constants + r));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
            if (r < 12) /* words 16 rounds on */
                *w0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(*w0, w1), _mm_alignr_epi8(w3, w2, 4)), w3);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128(at, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(at + 1, _mm_alignr_epi8(dchg, feba, 8));
}

/* CPUID itself: __builtin_cpu_supports is always false with zig's run-time library. */
ek_sha256_mix *ek_sha256_mix_here(void)
{
    unsigned a, b, c, d;
    const unsigned ssse3 = 1u << 9, sse41 = 1u << 19, sha = 1u << 29;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (ssse3 | sse41)) != (ssse3 | sse41))
        return ek_sha256_mix_plain;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & sha) ? mix_sha_ni : ek_sha256_mix_plain;
}

#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
#include <arm_neon.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif

__attribute__((target("sha2"))) static void mix_sha2(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
    for (; count > 0; blocks += 64, count--) {
        const uint32x4_t abcd_before = abcd, efgh_before = efgh;
        uint32x4_t w[4];
        for (int i = 0; i < 4; i++)
            w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(blocks + 16 * i)));
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++) {
            uint32x4_t *w0 = &w[r % 4], sum = vaddq_u32(*w0, vld1q_u32(ek_sha256_constants + 4 * r)), old = abcd;
            abcd = vsha256hq_u32(abcd, efgh, sum);
            efgh = vsha256h2q_u32(efgh, old, sum);
            if (r < 12) /* words 16 rounds on */
                *w0 = vsha256su1q_u32(vsha256su0q_u32(*w0, w[(r + 1) % 4]), w[(r + 2) % 4], w[(r + 3) % 4]);
        }
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

ek_sha256_mix *ek_sha256_mix_here(void)
{
#ifdef __linux__
    if (!(getauxval(AT_HWCAP) & 1 << 6)) /* HWCAP_SHA2: a Raspberry Pi 4 has it not, a 5 has */
        return ek_sha256_mix_plain;
#endif
    return mix_sha2;
}

#else
ek_sha256_mix *ek_sha256_mix_here(void) { return ek_sha256_mix_plain; }
#endif
