/* What a frozen prefix makes of each sample, kept in a file, so that it runs once for each (docs/protocol.md, "Prefix cache").
 * The file only grows, in whole rows that say of which sample they are and what they were made of: a cut loses what it hits. */
#ifndef EK_CACHE_H
#define EK_CACHE_H

#include "dataset.h"

enum { EK_CACHE_OFF, EK_CACHE_F32, EK_CACHE_F16, EK_CACHE_I8 };

/* "float32" …, and back; EK_CACHE_OFF: no such word. */
const char *ek_cache_word(uint32_t storage);
uint32_t ek_cache_storage(const char *word);

enum { EK_CACHE_ARRAYS = 8 };

/* What `start` asks for. */
typedef struct {
    uint32_t storage; /* of f32 arrays: EK_CACHE_OFF … EK_CACHE_I8 */
    uint64_t budget;  /* bytes of the file; 0: a quarter of what is free */
    ek_path path;
} ek_cache_request;

/* One array of the boundary: what `prefix` makes, and the same in `suffix`. */
typedef struct {
    uint32_t made, cached; /* tensors */
    uint32_t storage;      /* EK_CACHE_OFF: its bytes as they are */
    size_t rows, columns;  /* of a sample */
    size_t bytes;          /* of a sample, as kept: a multiple of 4 */
} ek_cache_array;

typedef struct {
    const ek_platform *platform;
    ek_executor *executor;
    const ek_entry *prefix, *suffix;
    ek_dataset inputs, rest; /* the ports of the one, and of the other beside the boundary */
    ek_cache_array arrays[EK_CACHE_ARRAYS];
    uint32_t count, samples, known; /* known: samples that have a row */
    uint32_t storage;
    uint64_t seed;      /* of this program's fingerprints */
    size_t row_bytes;   /* head included */
    ek_appended file;
    uint32_t *places;   /* by sample: its row's number + 1; 0: none */
    bool *trusted;      /* by sample: the row was made, or compared, by this process */
    uint8_t *rows;      /* of the batch under way */
    bool whole;         /* all of them were in the file */
    bool stores;        /* false once the file could not be written; `why` says more */
    ek_error why;
} ek_cache;

/* Open the cache for a training whose data set is in `folder`. NULL where there is none; *why says it then. Nothing stays open. */
ek_cache *ek_cache_open(const ek_platform *platform, ek_executor *executor, const char *folder, const ek_cache_request *request,
                        ek_error *why);

/* The samples' rows are read, or the prefix's inputs filled where one lacks: it must run then (`whole` is false). */
ek_status ek_cache_load(ek_cache *cache, const uint32_t *pick, ek_error *error);

/* Fill the suffix's ports. Where the prefix ran, its results are kept first. */
ek_status ek_cache_fill(ek_cache *cache, const uint32_t *pick, ek_error *error);

/* Check that samples can be used, as load and fill would, without the arena's contents being of use afterwards. */
ek_status ek_cache_check(ek_cache *cache, const uint32_t *pick, ek_error *error);

/* NULL is fine. With `remove` the file goes too. */
void ek_cache_close(ek_cache *cache, bool remove);

#endif
