/* The Program file (docs/program-format.md): its records as they lie in the file, and the verified view of it. */
#ifndef EK_PROGRAM_H
#define EK_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

enum { EK_F32 = 1, EK_I32 = 2, EK_U8 = 3, EK_BITS = 4, EK_I8 = 5 };
enum { EK_ARENA = 1, EK_CONSTANT = 2, EK_STATE = 3 };
enum { EK_TRAIN_STEP = 1, EK_UPDATE = 2, EK_EVALUATE = 3, EK_PREDICT = 4, EK_PREFIX = 5, EK_SUFFIX = 6 };
enum {
    EK_PORT_INPUT = 1,
    EK_PORT_TARGET = 2,
    EK_PORT_LOSS = 3,
    EK_PORT_OUTPUT = 4,
    EK_PORT_CORRECT = 5,
    EK_PORT_STEP = 6,
    EK_PORT_BOUNDARY = 7,
    EK_PORT_CACHED = 8
};
enum { EK_MAX_RANK = 6, EK_MAX_IN = 8, EK_MAX_OUT = 4, EK_ATTR_WORDS = 13, EK_ALIGN = 64 };
#define EK_ABSENT 0xFFFFu

typedef struct {
    uint8_t magic[8];
    uint32_t version, header_bytes;
    uint64_t file_bytes;
    uint8_t sha256[32];
    uint32_t architecture, backend, tensors, ops, entries, ports;
    uint64_t arena_bytes, state_bytes;
    uint64_t constants_offset, constants_bytes;
    uint64_t state_init_offset, state_init_bytes;
    uint64_t metadata_offset, metadata_bytes;
    uint32_t accumulate, batch;
    uint8_t zero[40];
} ek_header;

typedef struct {
    uint8_t dtype, rank, storage, zero0;
    uint32_t zero1;
    uint32_t dim[EK_MAX_RANK];
    uint64_t offset, bytes;
} ek_tensor;

typedef struct {
    uint16_t opcode, zero0;
    uint16_t in[EK_MAX_IN];
    uint16_t out[EK_MAX_OUT];
    uint32_t attr[EK_ATTR_WORDS];
} ek_op;

typedef struct {
    uint32_t kind, first_op, ops, first_port, ports, zero;
    uint64_t arena_bytes;
} ek_entry;

typedef struct {
    uint16_t role, index, tensor, zero0;
    int32_t low, high, ignore;
    uint32_t zero1;
} ek_port;

_Static_assert(sizeof(ek_header) == 192 && sizeof(ek_tensor) == 48 && sizeof(ek_op) == 80, "file layout");
_Static_assert(sizeof(ek_entry) == 32 && sizeof(ek_port) == 24, "file layout");

/* A verified Program: pointers into the file's bytes. */
typedef struct {
    const ek_header *header;
    const ek_tensor *tensors;
    const ek_op *ops;
    const ek_entry *entries;
    const ek_port *ports;
    const uint8_t *constants, *state_init;
    void (*forget)(const void *bytes, size_t size); /* of the file, not read soon: may leave memory until then; NULL after opening */
} ek_program;

/* Verify `bytes` (64-byte aligned, `size` long) and fill `program`, which points into them.
 * On failure *error says what is wrong and where; nothing of `program` may then be used. */
ek_status ek_program_open(ek_program *program, const void *bytes, size_t size, ek_error *error);

/* Check that the first axis of every input, target, output and correct port is the header's batch, and that of a boundary a multiple
 * of it: what one who feeds a verified Program samples of a data set needs. */
ek_status ek_program_check_batch(const ek_program *program, ek_error *error);

/* The entry of a kind, or NULL. */
const ek_entry *ek_program_entry(const ek_program *program, uint32_t kind);

/* The entry's port of a role and index, or NULL. */
const ek_port *ek_entry_port(const ek_program *program, const ek_entry *entry, uint32_t role, uint32_t index);

#endif
