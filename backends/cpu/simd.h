/* Vectors of the instruction set that this translation unit is compiled for (-DEK_ISA=avx512|avx2|neon|plain).
 * Every kernel source is compiled once an instruction set; EK_NAME gives its public symbols the set's suffix. */
#ifndef EK_SIMD_H
#define EK_SIMD_H

#include <stdint.h>
#include <string.h>

/* Where vector extensions do not say it, clang's builtins do: reading <immintrin.h> takes longer than compiling a kernel. */

#define EK_PASTE_(a, b) a##_##b
#define EK_PASTE(a, b) EK_PASTE_(a, b)
#define EK_NAME(name) EK_PASTE(name, EK_ISA)

#if defined(__AVX512F__)
enum { EK_LANES = 16 };
#elif defined(__AVX2__)
enum { EK_LANES = 8 };
#else
enum { EK_LANES = 4 }; /* NEON; SSE2 on x86; scalars elsewhere */
#endif

typedef float ek_vf __attribute__((vector_size(EK_LANES * 4)));
typedef int32_t ek_vi __attribute__((vector_size(EK_LANES * 4)));
typedef float ek_vfu __attribute__((vector_size(EK_LANES * 4), aligned(4)));

#define EK_INLINE static inline __attribute__((always_inline))
#define EK_UNROLL _Pragma("clang loop unroll(full)")

EK_INLINE ek_vf ek_load(const float *p) { return *(const ek_vfu *)p; }
EK_INLINE void ek_store(float *p, ek_vf v) { *(ek_vfu *)p = v; }

/* Store a vector, aligned, past the caches; what other threads are told of it waits for ek_stream_end. Only where it helps: not on Arm. */
#if defined(__AVX2__)
enum { EK_STREAMS = 1 };
EK_INLINE void ek_stream(float *p, ek_vf v) { __builtin_nontemporal_store(v, (ek_vf *)p); }
EK_INLINE void ek_stream_end(void) { __builtin_ia32_sfence(); }
#else
enum { EK_STREAMS = 0 };
EK_INLINE void ek_stream(float *p, ek_vf v) { ek_store(p, v); }
EK_INLINE void ek_stream_end(void) {}
#endif

EK_INLINE ek_vf ek_splat(float x) { return x - (ek_vf){0}; }

/* a where a comparison is true, b elsewhere. */
EK_INLINE ek_vf ek_select(ek_vi truth, ek_vf a, ek_vf b) { return (ek_vf)((truth & (ek_vi)a) | (~truth & (ek_vi)b)); }

/* The larger and the smaller of `limit` and v; v where either is NaN, so that NaN passes and a NaN limit is no limit.
 * */
EK_INLINE ek_vf ek_at_least(ek_vf v, ek_vf limit) { return ek_select(limit > v, limit, v); }
EK_INLINE ek_vf ek_at_most(ek_vf v, ek_vf limit) { return ek_select(limit < v, limit, v); }

/* v between limits that are not NaN; NaN passes. */
EK_INLINE ek_vf ek_between(ek_vf v, ek_vf low, ek_vf high) {
#if defined(__aarch64__)
    return __builtin_elementwise_minimum(__builtin_elementwise_maximum(v, low), high); /* an instruction each */
#else
    return ek_at_most(ek_at_least(v, low), high);
#endif
}

EK_INLINE ek_vi ek_lane_numbers(void) {
    ek_vi lane;
    EK_UNROLL
    for (int i = 0; i < EK_LANES; i++) lane[i] = i;
    return lane;
}

/* Load and store the first n (1 … EK_LANES) floats; the rest reads as zero and is not touched in memory. */
EK_INLINE ek_vf ek_load_part(const float *p, int n) {
#if defined(__AVX512F__)
    return __builtin_ia32_loadups512_mask(p, (ek_vf){0}, (uint16_t)((1u << n) - 1));
#elif defined(__AVX2__)
    return __builtin_ia32_maskloadps256((const ek_vf *)p, ek_lane_numbers() < n);
#else
    float part[EK_LANES] = {0};
    for (int i = 0; i < n; i++) part[i] = p[i];
    return ek_load(part);
#endif
}

EK_INLINE void ek_store_part(float *p, ek_vf v, int n) {
#if defined(__AVX512F__)
    __builtin_ia32_storeups512_mask(p, v, (uint16_t)((1u << n) - 1));
#elif defined(__AVX2__)
    __builtin_ia32_maskstoreps256((ek_vf *)p, ek_lane_numbers() < n, v);
#else
    for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

/* One bit a lane, lane i in bit i, of a comparison's result; and back. */
EK_INLINE uint32_t ek_bits_of(ek_vi truth) {
#if defined(__AVX512F__)
    return __builtin_ia32_cvtd2mask512(truth);
#elif defined(__AVX2__)
    uint32_t bits; /* where one byte of them is stored, clang makes four instructions of the builtin */
    __asm__("vmovmskps %1, %0" : "=r"(bits) : "x"(truth));
    return bits;
#else
    ek_vi bit = truth & ((ek_vi){0} + 1) << ek_lane_numbers();
#if defined(__aarch64__)
    return (uint32_t)__builtin_reduce_add(bit); /* one instruction, where taking the lanes one by one takes seven */
#else
    return (uint32_t)(bit[0] | bit[1] | bit[2] | bit[3]);
#endif
#endif
}

EK_INLINE ek_vi ek_truth_of(uint32_t bits) {
    ek_vi bit = ((ek_vi){0} + 1) << ek_lane_numbers();
    return (((ek_vi){0} + (int32_t)bits) & bit) != 0;
}

#endif
