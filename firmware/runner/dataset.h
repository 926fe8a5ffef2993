/* A folder of .npy files as the batches of one entry's input and target ports (docs/protocol.md, "Data"). */
#ifndef EK_DATASET_H
#define EK_DATASET_H

#include "../core/executor.h"
#include "npy.h"
#include "platform.h"

enum { EK_MAX_SOURCES = 16 };

/* One file and the port that it fills. */
typedef struct {
    char name[24]; /* "inputs.npy" */
    ek_file file;
    ek_npy array;
    const ek_port *port;
    const ek_tensor *tensor;
    size_t sample_items; /* elements of one sample */
} ek_source;

typedef struct {
    const ek_platform *platform;
    ek_source sources[EK_MAX_SOURCES];
    uint32_t count;
    uint32_t samples, batch;
} ek_dataset;

/* The entry's input and target ports, without data yet. */
ek_status ek_dataset_bind(ek_dataset *data, const ek_platform *platform, const ek_program *program, const ek_entry *entry,
                          ek_error *error);

/* Map and check the files that the ports need: shapes, dtypes, every label. On failure nothing stays open. */
ek_status ek_dataset_open(ek_dataset *data, const char *folder, ek_error *error);

/* The same with the bytes of the files, one a port, which the caller keeps. */
ek_status ek_dataset_show(ek_dataset *data, const ek_file *parts, ek_error *error);

void ek_dataset_close(ek_dataset *data);

/* Fill the ports with the samples numbered in pick[batch]. NOT_FINITE names the file and the sample. */
ek_status ek_dataset_fill(const ek_dataset *data, const ek_executor *executor, const uint32_t *pick, ek_error *error);

/* The order of an epoch: 0 … count - 1 shuffled (docs/program-format.md, "Randomness"). */
void ek_shuffle(uint32_t *order, uint32_t count, uint32_t seed, uint32_t epoch);

#endif
