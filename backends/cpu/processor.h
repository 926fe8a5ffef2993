/* What this x86-64 processor and its system can run: the levels of the x86-64 psABI (section 3.1.1) that kernels are
 * compiled for. CPUID and XGETBV are read here, since __builtin_cpu_supports is always false with zig's run-time
 * library. */
#ifndef EK_PROCESSOR_H
#define EK_PROCESSOR_H

#include <cpuid.h>
#include <stdint.h>

#define EK_BIT(n) (1u << (n))

/* Every bit of CPUID's answers that a level wants, and of XCR0: the registers that the system saves at a task
 * switch. */
typedef struct {
    uint32_t leaf1_ecx, leaf7_ebx, extended_ecx, xcr0, leaf7_ecx, leaf7_1_eax;
} ek_features;

/* SSE3, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, OSXSAVE, AVX, F16C; BMI1, AVX2, BMI2; LAHF, LZCNT;
 * SSE and AVX state */
static const ek_features ek_x86_64_v3 = {
    EK_BIT(0) | EK_BIT(9) | EK_BIT(12) | EK_BIT(13) | EK_BIT(19) | EK_BIT(20) | EK_BIT(22) | EK_BIT(23) | EK_BIT(27) |
        EK_BIT(28) | EK_BIT(29),
    EK_BIT(3) | EK_BIT(5) | EK_BIT(8), EK_BIT(0) | EK_BIT(5), 0x06, 0, 0};

/* Besides: AVX-512 F, DQ, CD, BW, VL; mask registers and the wider halves of the vector registers */
static const ek_features ek_x86_64_v4 = {0, EK_BIT(16) | EK_BIT(17) | EK_BIT(28) | EK_BIT(30) | EK_BIT(31), 0, 0xE6, 0, 0};

/* Dot products of bytes, besides either: AVX512_VNNI; AVX-VNNI, for 256 bits without AVX-512 */
static const ek_features ek_avx512_vnni = {0, 0, 0, 0, EK_BIT(11), 0};
static const ek_features ek_avx_vnni = {0, 0, 0, 0, 0, EK_BIT(4)};

static inline ek_features ek_features_here(void) {
    ek_features f = {0};
    uint32_t eax = 0, ebx, ecx, edx, high;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) f.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) f.leaf7_ebx = ebx, f.leaf7_ecx = ecx;
    if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) f.leaf7_1_eax = eax;
    if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx)) f.extended_ecx = ecx;
    if (f.leaf1_ecx & EK_BIT(27)) __asm__ volatile("xgetbv" : "=a"(f.xcr0), "=d"(high) : "c"(0));
    return f;
}

static inline int ek_has(ek_features have, ek_features want) {
    return (have.leaf1_ecx & want.leaf1_ecx) == want.leaf1_ecx && (have.leaf7_ebx & want.leaf7_ebx) == want.leaf7_ebx &&
           (have.extended_ecx & want.extended_ecx) == want.extended_ecx && (have.xcr0 & want.xcr0) == want.xcr0 &&
           (have.leaf7_ecx & want.leaf7_ecx) == want.leaf7_ecx && (have.leaf7_1_eax & want.leaf7_1_eax) == want.leaf7_1_eax;
}

#endif
