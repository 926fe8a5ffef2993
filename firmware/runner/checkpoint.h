/* Checkpoints (docs/protocol.md, "Checkpoint"): the state region and the place in the training, saved as a whole or not at all. */
#ifndef EK_CHECKPOINT_H
#define EK_CHECKPOINT_H

#include "../core/executor.h"
#include "platform.h"

/* Where a training is. */
typedef struct {
    uint64_t step;    /* updates done */
    uint64_t seed;
    uint32_t epoch;   /* epochs done */
    uint32_t batches; /* micro-batches done in the epoch under way */
} ek_position;

/* Save; *bytes is the file's size. NO_SPACE, PERMISSION, NOT_FOUND, IO. */
ek_status ek_checkpoint_save(const ek_platform *platform, const char *path, const ek_executor *executor,
                             const ek_position *position, uint64_t *bytes, ek_error *error);

/* The step that a checkpoint says it was made at, from its head alone; false: there is none. */
bool ek_checkpoint_step(const ek_platform *platform, const char *path, uint64_t *step);

/* Map and verify a checkpoint of this program: digest, program, sizes. Unmap `file` when done; on failure it is unmapped. */
ek_status ek_checkpoint_open(const ek_platform *platform, const char *path, const ek_executor *executor, ek_file *file,
                             ek_position *position, ek_error *error);

/* The state of a file that ek_checkpoint_open verified becomes the executor's. */
void ek_checkpoint_apply(const ek_file *file, ek_executor *executor);

#endif
