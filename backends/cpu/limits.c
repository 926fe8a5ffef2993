/* Loops that do nothing but what the processor does fastest: multiply-adds in registers, reading and copying. */
#include "../../firmware/core/kernel.h"
#include "epilogue.h"
#include "simd.h"

/* Enough that every multiply-add unit always has one whose operands are there: latency × units, and within 16 registers. */
enum { CHAINS = 12 };

static uint64_t multiply(uint64_t rounds, float *sum) {
    ek_vf acc[CHAINS], x = ek_splat(*sum), y = ek_splat(1.0f - *sum);
    EK_UNROLL
    for (int i = 0; i < CHAINS; i++) acc[i] = ek_splat((float)i);
    for (uint64_t r = 0; r < rounds; r++) {
        EK_UNROLL
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * x + y;
    }
    EK_UNROLL
    for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
    *sum = acc[0][0];
    return rounds * CHAINS * EK_LANES * 2;
}

/* Floats of a turn of the loops: a whole number of vectors of every set. */
enum { TURN = 64 };

static void read_all(const float *from, size_t floats, float *sum) {
    ek_vf acc[TURN / EK_LANES] = {0};
    for (size_t i = 0; i + TURN <= floats; i += TURN) {
        EK_UNROLL
        for (int j = 0; j < TURN / EK_LANES; j++) acc[j] += ek_load(from + i + j * EK_LANES);
    }
    EK_UNROLL
    for (int j = 1; j < TURN / EK_LANES; j++) acc[0] += acc[j];
    *sum = acc[0][0];
}

static void copy_all(float *to, const float *from, size_t floats) {
    int past = floats * sizeof *to >= EK_STREAM_BYTES;
    for (size_t i = 0; i + TURN <= floats; i += TURN) {
        EK_UNROLL
        for (int j = 0; j < TURN; j += EK_LANES) {
            if (past) ek_stream(to + i + j, ek_load(from + i + j));
            else ek_store(to + i + j, ek_load(from + i + j));
        }
    }
    ek_stream_end();
}

const ek_limits EK_NAME(ek_limits) = {multiply, read_all, copy_all};
