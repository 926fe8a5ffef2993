/* The backends: every kernel once for each instruction set of this processor family. Compiled once, unlike the
 * kernels. */
#include <stddef.h>

#include "../../firmware/core/kernel.h"

#define KERNELS(K, isa) \
    K(LINEAR, linear, isa) K(LINEAR_INPUT_GRAD, linear_input_grad, isa) K(LINEAR_WEIGHT_GRAD, linear_weight_grad, isa) \
    K(CONV2D, conv2d, isa) K(CONV2D_INPUT_GRAD, conv2d_input_grad, isa) K(CONV2D_WEIGHT_GRAD, conv2d_weight_grad, isa) \
    K(UNARY, unary, isa) K(UNARY_GRAD, unary_grad, isa) K(APPLY_MASK, apply_mask, isa) K(DROPOUT, dropout, isa) \
    K(BINARY, binary, isa) K(AFFINE, affine, isa) K(REDUCE, reduce, isa) K(EXPAND, expand, isa) \
    K(PERMUTE, permute, isa) K(SLICE, slice, isa) K(UNSLICE, unslice, isa) K(CONCAT, concat, isa) \
    K(MAX_POOL2D, max_pool2d, isa) K(MAX_POOL2D_GRAD, max_pool2d_grad, isa) \
    K(AVG_POOL2D, avg_pool2d, isa) K(AVG_POOL2D_GRAD, avg_pool2d_grad, isa) \
    K(ADAPTIVE_AVG_POOL2D, adaptive_avg_pool2d, isa) K(ADAPTIVE_AVG_POOL2D_GRAD, adaptive_avg_pool2d_grad, isa) \
    K(CROSS_ENTROPY, cross_entropy, isa) K(CROSS_ENTROPY_GRAD, cross_entropy_grad, isa) \
    K(SOFTMAX, softmax, isa) K(SOFTMAX_GRAD, softmax_grad, isa) \
    K(NLL_LOSS, nll_loss, isa) K(NLL_LOSS_GRAD, nll_loss_grad, isa) K(ARGMAX_MATCH, argmax_match, isa) \
    K(SGD_UPDATE, sgd_update, isa) K(ACCUMULATE, accumulate, isa) K(FILL, fill, isa) \
    K(SUM_SQUARES, sum_squares, isa) K(CLIP_COEFFICIENT, clip_coefficient, isa) \
    K(QUANTIZE, quantize, isa) K(DEQUANTIZE, dequantize, isa) K(Q_ADD, q_add, isa) \
    K(Q_MEAN, q_mean, isa) WITH_STEPS(K, isa)

#if defined(EK_M7)
#define WITH_STEPS(K, isa)
#else
#define WITH_STEPS(K, isa) K(LINEAR_SGD, linear_sgd, isa)
#endif

#define PRODUCTS_OF_BYTES(K, isa) K(Q_CONV2D, q_conv2d, isa)

#define DECLARE(CODE, name, isa) extern const ek_kernel ek_kernel_##name##_##isa;
#define ENTER(CODE, name, isa) [EK_OP_##CODE] = &ek_kernel_##name##_##isa,
#define LIST(isa, others) \
    PRODUCTS_OF_BYTES(DECLARE, isa) \
    static const ek_kernel *const isa##_kernels[EK_OPCODES] = {KERNELS(ENTER, others) PRODUCTS_OF_BYTES(ENTER, isa)}; \
    static const ek_backend isa##_backend = {#isa, isa##_usable, isa##_kernels, &ek_limits_##others};
#define BACKEND(isa) \
    KERNELS(DECLARE, isa) \
    extern const ek_limits ek_limits_##isa; \
    LIST(isa, isa)
/* Instructions for products of bytes: a set that is another one but for those. */
#define BACKEND_BUT_FOR_BYTES(isa, others) LIST(isa, others)

static int always(void) { return 1; }

#if defined(EK_M7)

#define m7_usable always
BACKEND(m7)
const ek_backend *const ek_backends[] = {&m7_backend, NULL};

#elif defined(__x86_64__)

#include "processor.h"

static int avx2_usable(void) { return ek_has(ek_features_here(), ek_x86_64_v3); }
static int avx512_usable(void) { return avx2_usable() && ek_has(ek_features_here(), ek_x86_64_v4); }
static int avx512_vnni_usable(void) { return avx512_usable() && ek_has(ek_features_here(), ek_avx512_vnni); }
static int avx2_vnni_usable(void) { return avx2_usable() && ek_has(ek_features_here(), ek_avx_vnni); }
#define plain_usable always
BACKEND(avx512)
BACKEND(avx2)
BACKEND(plain)
BACKEND_BUT_FOR_BYTES(avx512_vnni, avx512)
BACKEND_BUT_FOR_BYTES(avx2_vnni, avx2)
const ek_backend *const ek_backends[] = {&avx512_vnni_backend, &avx512_backend, &avx2_vnni_backend, &avx2_backend, &plain_backend, NULL};

#elif defined(__aarch64__)

#define neon_usable always
BACKEND(neon)
#if defined(__linux__)
#include <sys/auxv.h>

/* HWCAP_ASIMDDP of Linux's asm/hwcap.h */
static int neon_dotprod_usable(void) { return (getauxval(AT_HWCAP) & (1ul << 20)) != 0; }
BACKEND_BUT_FOR_BYTES(neon_dotprod, neon)
const ek_backend *const ek_backends[] = {&neon_dotprod_backend, &neon_backend, NULL};
#else /* Apple's processors all have the dot products, and "neon" is compiled for them */
const ek_backend *const ek_backends[] = {&neon_backend, NULL};
#endif

#endif
