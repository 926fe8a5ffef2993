/* Seeded dropout: which elements are kept depends on seed, step, stream and place alone (docs/program-format.md,
 * "Randomness"). */
#include <math.h>

#include "bits.h"
#include "random.h"

typedef struct {
    const ek_call *call;
    uint64_t key, threshold;
    float scale;
} dropout_job;

/* Bits of the EK_GROUP elements from number `first`. */
EK_INLINE uint32_t kept(const dropout_job *job, uint64_t first) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < EK_GROUP; i++)
        bits |= (uint32_t)(ek_draw(job->key, first + i) >= job->threshold) << i;
    return bits;
}

static void dropout_part(void *context, int index, int count) {
    const dropout_job *job = context;
    const ek_call *call = job->call;
    ek_bit_rows all = ek_rows_of(call->in_t[EK_DROPOUT_X]);
    ek_bit_part part = ek_bit_share(all, index, count);
    for (size_t r = part.rows.begin; r < part.rows.end; r++) {
        const float *x = (const float *)call->in[EK_DROPOUT_X] + r * all.columns;
        float *y = (float *)call->out[EK_DROPOUT_Y] + r * all.columns;
        uint8_t *mask = call->out[EK_DROPOUT_MASK] ? (uint8_t *)call->out[EK_DROPOUT_MASK] + r * all.row_bytes : NULL;
        for (size_t i = part.columns.begin; i < part.columns.end; i += EK_GROUP) {
            size_t n = part.columns.end - i;
            uint32_t bits = kept(job, r * all.columns + i);
            ek_store_group(y + i, ek_keep(ek_load_group(x + i, n), bits, job->scale), n);
            if (mask) ek_store_group_bits(mask + i / 8, bits, n);
        }
    }
}

static void dropout(const ek_call *call) {
    const ek_dropout_attrs *a = call->attrs;
    dropout_job job = {.call = call, .key = ek_random_key(call->in[EK_DROPOUT_STEP], a->stream)};
    job.threshold = (uint64_t)ceil((double)a->p * 0x1p24);
    job.scale = (float)(1.0 / (1.0 - (double)a->p));
    ek_parallel(call->pool, ek_elements(call->in_t[EK_DROPOUT_X]), dropout_part, &job);
}

const ek_kernel EK_NAME(ek_kernel_dropout) = {.run = dropout};
