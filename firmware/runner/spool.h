/* A data set that does not fit on the board: a host brings it as shards in the order of its use (docs/protocol.md, "Shards").
 * A few of them are here at a time; each is verified when it comes, and gone when it has been used. */
#ifndef EK_SPOOL_H
#define EK_SPOOL_H

#include "dataset.h"

enum { EK_SPOOL_AHEAD = 16, EK_DIGEST = 32 };

/* What `start` says of such a data set. */
typedef struct {
    uint32_t samples;          /* in all; 0: the data set is on the board as a whole */
    uint32_t steps;            /* of a shard, but of the last one */
    uint32_t ahead;            /* shards that may be here, the one in use among them: 2 to EK_SPOOL_AHEAD */
    uint8_t digest[EK_DIGEST]; /* of the data set: every shard must name it */
    ek_path folder;            /* shard 7 is brought to <folder>/7 */
} ek_stream;

typedef struct {
    const ek_platform *platform;
    ek_stream stream;
    bool own;                      /* the folder goes with the spool */
    bool shown;                    /* the data set's arrays are those of the shard in use */
    uint64_t per_step, limit;      /* samples that a step takes, and that all of them take */
    uint64_t first, total;         /* the shard in use; how many there are */
    ek_file shards[EK_SPOOL_AHEAD]; /* by number % EK_SPOOL_AHEAD: mapped and verified; bytes == NULL: not here */
} ek_spool;

/* Begin with the shard of the step number `step`. Nothing of it may be in the folder. */
void ek_spool_begin(ek_spool *spool, const ek_platform *platform, const ek_stream *stream, bool own, uint64_t step,
                    uint64_t per_step, uint64_t limit);

bool ek_spool_used(const ek_spool *spool);

/* Whether the shard in use is here; also where the data set is here as a whole. */
bool ek_spool_ready(const ek_spool *spool);

/* The first shard that is not here; the first that has no room yet. */
uint64_t ek_spool_wanted(const ek_spool *spool);
uint64_t ek_spool_until(const ek_spool *spool);

/* A shard has been brought: verify all of it. One that is here, or was, stays as it is. On failure its file is removed. */
ek_status ek_spool_take(ek_spool *spool, uint64_t number, uint64_t bytes, const uint8_t sha256[EK_DIGEST],
                        const ek_dataset *data, ek_error *error);

/* Before a step: `data` gets the arrays of the shard in use, which is ready. */
ek_status ek_spool_show(ek_spool *spool, ek_dataset *data, ek_error *error);

/* After the step before `step`: shards that are used up go. */
ek_status ek_spool_release(ek_spool *spool, uint64_t step, ek_error *error);

/* The place of the training's, or evaluation's, sample number `sample` in the shard in use; itself where there is no spool. */
uint64_t ek_spool_row(const ek_spool *spool, uint64_t sample);

/* Everything goes. */
void ek_spool_close(ek_spool *spool);

#endif
