/* What a backend offers: one kernel an opcode. Shapes were checked when the Program was opened, so kernels check nothing. */
#ifndef EK_KERNEL_H
#define EK_KERNEL_H

#include "ops_gen.h"
#include "pool.h"
#include "program.h"

/* One op with its operands resolved. Absent operands have NULL tensor and NULL data. */
typedef struct {
    const void *attrs; /* the op's ek_<name>_attrs */
    const ek_tensor *in_t[EK_MAX_IN], *out_t[EK_MAX_OUT];
    void *in[EK_MAX_IN], *out[EK_MAX_OUT]; /* 64-byte aligned */
    void *scratch;                         /* what scratch_bytes asked for, shared by all ops of the program */
    const void *prepared;                  /* what prepare wrote, or NULL */
    ek_pool *pool;
} ek_call;

/* A kernel. Members other than `run` may be NULL. */
typedef struct {
    /* Bytes of working memory that one run needs with this many threads. */
    size_t (*scratch_bytes)(const ek_call *call, int threads);
    /* Bytes for this op's constants in the kernel's own layout (packed frozen weights), 0 for none; and the packing.
     * Done once, at load, for all ops with the same opcode, attributes and constants: nothing else may count in what is written. */
    size_t (*prepared_bytes)(const ek_call *call);
    void (*prepare)(const ek_call *call, void *to);
    void (*run)(const ek_call *call);
} ek_kernel;

/* What runs at the processor's limits, for measuring them (firmware/runner/limits.c). `sum` keeps the work from being left out. */
typedef struct {
    uint64_t (*multiply)(uint64_t rounds, float *sum); /* multiply-adds in registers, *sum being 0 … 1; how many operations */
    void (*read)(const float *from, size_t floats, float *sum);
    void (*copy)(float *to, const float *from, size_t floats);
} ek_limits;

/* A set of kernels for one instruction set. */
typedef struct {
    const char *name;         /* "avx512", "avx2", "neon", "plain" */
    int (*usable)(void);      /* whether this processor has the instructions */
    const ek_kernel *const *kernels; /* EK_OPCODES entries, by opcode; NULL where there is none */
    const ek_limits *limits;
} ek_backend;

/* The backends compiled in, best first, NULL at the end (backends/cpu/table.c). */
extern const ek_backend *const ek_backends[];

#endif
