/* Verifies a Program file (docs/program-format.md) and finds its parts. */
#include "program.h"

#include <inttypes.h>
#include <string.h>

#include "check_ops.h"
#include "sha256.h"

enum { VERSION = 1, DIGEST_FROM = 56, MAX_BATCH = 1 << 24 };
enum { BACKEND_CPU = 1, BACKEND_CORTEX_M = 2 };

#if defined(__x86_64__)
enum { ARCHITECTURE = 1, BACKEND = BACKEND_CPU };
#elif defined(__aarch64__)
enum { ARCHITECTURE = 2, BACKEND = BACKEND_CPU };
#elif defined(__ARM_ARCH_7EM__)
enum { ARCHITECTURE = 3, BACKEND = BACKEND_CORTEX_M };
#else
enum { ARCHITECTURE = 0, BACKEND = BACKEND_CPU };
#endif

static const char *const ARCHITECTURES[] = {"any", "x86-64", "aarch64", "armv7e-m"};
static const char *const BACKENDS[] = {"none", "cpu", "cortex-m", "torch"};

#define NAME_OF(names, i) ((i) < sizeof(names) / sizeof *(names) ? (names)[i] : "unknown")

static int all_zero(const uint8_t *bytes, size_t count)
{
    uint8_t any = 0;
    for (size_t i = 0; i < count; i++)
        any |= bytes[i];
    return any == 0;
}

static ek_status check_digest(const ek_header *header, ek_error *error)
{
#ifdef EK_FUZZING /* a fuzzer does not find SHA-256 preimages */
    (void)header, (void)error;
#else
    uint8_t digest[32];
    ek_sha256_of((const uint8_t *)header + DIGEST_FROM, (size_t)header->file_bytes - DIGEST_FROM, digest);
    if (memcmp(digest, header->sha256, sizeof digest) != 0)
        return ek_fail(error, EK_BAD_DIGEST, "the program's digest is not that of its bytes: the file was changed");
#endif
    return EK_OK;
}

static ek_status check_header(const uint8_t *bytes, size_t size, ek_error *error)
{
    static const uint8_t magic[8] = {0x89, 'E', 'K', 'P', '\r', '\n', 0x1a, '\n'};
    const ek_header *header = (const ek_header *)bytes;
    if (size < sizeof magic || memcmp(bytes, magic, sizeof magic) != 0)
        return ek_fail(error, EK_BAD_PROGRAM, "the file does not begin as a program does");
    if ((uintptr_t)bytes % EK_ALIGN != 0)
        return ek_fail(error, EK_BAD_PROGRAM, "the program's bytes are not aligned to %d", EK_ALIGN);
    if (size < sizeof *header)
        return ek_fail(error, EK_BAD_DIGEST, "the program is cut: %zu bytes are no whole header", size);
    if (header->version != VERSION)
        return ek_fail(error, EK_BAD_VERSION, "the program has version %" PRIu32 ", this runner reads %d", header->version, VERSION);
    if (header->header_bytes != sizeof *header)
        return ek_fail(error, EK_BAD_PROGRAM, "the header says that it has %" PRIu32 " bytes", header->header_bytes);
    if (header->file_bytes != size)
        return ek_fail(error, EK_BAD_DIGEST, "the program is cut: %zu of %" PRIu64 " bytes", size, header->file_bytes);
    return check_digest(header, error);
}

static ek_status check_board(const ek_header *header, ek_error *error)
{
    if (header->architecture != 0 && header->architecture != ARCHITECTURE)
        return ek_fail(error, EK_WRONG_BOARD, "the program is for %s, this board is %s", NAME_OF(ARCHITECTURES, header->architecture),
                       ARCHITECTURES[ARCHITECTURE]);
    if (header->backend != BACKEND)
        return ek_fail(error, EK_WRONG_BOARD, "the program is for the %s backend, this runner has %s", NAME_OF(BACKENDS, header->backend),
                       BACKENDS[BACKEND]);
    return EK_OK;
}

/* Take `count` records from *at, which moves to the next multiple of 64. NULL where they are not inside `size`. */
static const void *take(const uint8_t *bytes, uint64_t size, uint64_t *at, uint64_t count, uint64_t record)
{
    if (*at > size || count > (size - *at) / record)
        return NULL;
    const void *table = bytes + *at;
    *at += count * record;
    *at += -*at % EK_ALIGN;
    return table;
}

/* Whether a region that the header names starts at or after `from`, aligned and inside the file. */
static int inside(uint64_t offset, uint64_t bytes, uint64_t from, uint64_t size)
{
    return offset % EK_ALIGN == 0 && offset >= from && offset <= size && bytes <= size - offset;
}

static ek_status find_parts(ek_program *program, const uint8_t *bytes, ek_error *error)
{
    const ek_header *h = (const ek_header *)bytes;
    uint64_t size = h->file_bytes, at = sizeof *h;
    program->header = h;
    program->tensors = take(bytes, size, &at, h->tensors, sizeof(ek_tensor));
    program->ops = take(bytes, size, &at, h->ops, sizeof(ek_op));
    program->entries = take(bytes, size, &at, h->entries, sizeof(ek_entry));
    program->ports = take(bytes, size, &at, h->ports, sizeof(ek_port));
    if (!program->tensors || !program->ops || !program->entries || !program->ports)
        return ek_fail(error, EK_BAD_PROGRAM, "a table ends past the file");
    if (!inside(h->constants_offset, h->constants_bytes, at, size))
        return ek_fail(error, EK_BAD_PROGRAM, "the constants are not where they must be");
    if (!inside(h->state_init_offset, h->state_init_bytes, h->constants_offset + h->constants_bytes, size))
        return ek_fail(error, EK_BAD_PROGRAM, "the state's first contents are not where they must be");
    if (!inside(h->metadata_offset, h->metadata_bytes, h->state_init_offset + h->state_init_bytes, size))
        return ek_fail(error, EK_BAD_PROGRAM, "the metadata are not where they must be");
    program->constants = bytes + h->constants_offset;
    program->state_init = bytes + h->state_init_offset;
    return EK_OK;
}

static ek_status check_numbers(const ek_header *h, ek_error *error)
{
    if (h->tensors >= EK_ABSENT)
        return ek_fail(error, EK_BAD_PROGRAM, "%" PRIu32 " tensors are more than their numbers can tell apart", h->tensors);
    if (h->state_init_bytes > h->state_bytes)
        return ek_fail(error, EK_BAD_PROGRAM, "the state's first contents are larger than the state");
    if (h->accumulate < 1 || h->batch < 1 || h->batch > MAX_BATCH)
        return ek_fail(error, EK_BAD_PROGRAM, "batch %" PRIu32 " or accumulate %" PRIu32 " are out of range", h->batch, h->accumulate);
    if (!all_zero(h->zero, sizeof h->zero))
        return ek_fail(error, EK_BAD_PROGRAM, "a header field that must be zero is not");
    return EK_OK;
}

/* Bytes that a tensor takes, 0 where a dim is out of range or it has more than INT32_MAX elements. */
static uint64_t tensor_bytes(const ek_tensor *t)
{
    uint64_t rows = 1, columns = t->rank > 0 ? t->dim[t->rank - 1] : 1;
    for (int i = 0; i < EK_MAX_RANK; i++) {
        if (t->dim[i] < 1 || t->dim[i] > INT32_MAX || (i >= t->rank && t->dim[i] != 1))
            return 0;
        if (i < t->rank - 1)
            rows *= t->dim[i];
        if (rows > INT32_MAX)
            return 0;
    }
    if (rows * columns > INT32_MAX)
        return 0;
    if (t->dtype == EK_BITS)
        return rows * ((columns + 7) / 8);
    return rows * columns * (t->dtype == EK_U8 || t->dtype == EK_I8 ? 1 : 4);
}

static ek_status check_tensor(const ek_program *program, uint32_t number, ek_error *error)
{
    const ek_header *h = program->header;
    const ek_tensor *t = &program->tensors[number];
    if (t->dtype < EK_F32 || t->dtype > EK_I8 || t->rank > EK_MAX_RANK || t->storage < EK_ARENA || t->storage > EK_STATE)
        return ek_fail(error, EK_BAD_PROGRAM, "tensor %" PRIu32 ": its dtype, rank or storage is unknown", number);
    if (t->zero0 != 0 || t->zero1 != 0)
        return ek_fail(error, EK_BAD_PROGRAM, "tensor %" PRIu32 ": a field that must be zero is not", number);
    uint64_t bytes = tensor_bytes(t);
    if (bytes == 0 || bytes != t->bytes)
        return ek_fail(error, EK_BAD_PROGRAM, "tensor %" PRIu32 ": its shape and its %" PRIu64 " bytes do not fit", number, t->bytes);
    uint64_t region = t->storage == EK_ARENA ? h->arena_bytes : t->storage == EK_STATE ? h->state_bytes : h->constants_bytes;
    if (t->offset % EK_ALIGN != 0 || t->offset > region || bytes > region - t->offset)
        return ek_fail(error, EK_BAD_PROGRAM, "tensor %" PRIu32 ": it is not inside its region", number);
    return EK_OK;
}

static int is_scalar_f32(const ek_tensor *t) { return t->dtype == EK_F32 && t->rank == 0; }

static const char *check_port(const ek_program *program, const ek_port *port)
{
    if (port->zero0 != 0 || port->zero1 != 0)
        return "a field that must be zero is not";
    if (port->tensor >= program->header->tensors)
        return "it is no tensor of the program";
    const ek_tensor *t = &program->tensors[port->tensor];
    int filled = port->role == EK_PORT_INPUT || port->role == EK_PORT_TARGET || port->role == EK_PORT_STEP || port->role == EK_PORT_CACHED;
    int boundary = port->role == EK_PORT_BOUNDARY || port->role == EK_PORT_CACHED;
    if (filled && t->storage != EK_ARENA)
        return "what is filled from outside is not in the arena";
    if (port->low > port->high)
        return "its range is empty";
    if (port->index != 0 && port->role != EK_PORT_INPUT && port->role != EK_PORT_OUTPUT && !boundary)
        return "only inputs, outputs and a boundary's arrays have an index";
    switch (port->role) {
    case EK_PORT_INPUT:
        return t->dtype == EK_F32 || t->dtype == EK_I32 || t->dtype == EK_I8 ? NULL : "it is none of f32, i32 and i8";
    case EK_PORT_TARGET:
        return t->dtype == EK_F32 || t->dtype == EK_I32 ? NULL : "it is neither f32 nor i32";
    case EK_PORT_LOSS:
        return is_scalar_f32(t) ? NULL : "the loss is no f32 scalar";
    case EK_PORT_OUTPUT:
        return t->dtype != EK_BITS ? NULL : "an output of bits";
    case EK_PORT_CORRECT:
        return t->dtype == EK_U8 ? NULL : "correct is not u8";
    case EK_PORT_STEP:
        return t->dtype == EK_I32 && t->rank == 1 && t->dim[0] == 2 ? NULL : "the step is not i32[2]";
    case EK_PORT_BOUNDARY:
    case EK_PORT_CACHED:
        return t->dtype == EK_F32 || t->dtype == EK_I8 ? NULL : "a boundary of neither f32 nor i8";
    default:
        return "its role is unknown";
    }
}

static ek_status check_entry(const ek_program *program, uint32_t number, ek_error *error)
{
    const ek_header *h = program->header;
    const ek_entry *entry = &program->entries[number];
    if (entry->kind < EK_TRAIN_STEP || entry->kind > EK_SUFFIX || entry->zero != 0)
        return ek_fail(error, EK_BAD_PROGRAM, "entry %" PRIu32 ": kind %" PRIu32 " is unknown", number, entry->kind);
    if (ek_program_entry(program, entry->kind) != entry)
        return ek_fail(error, EK_BAD_PROGRAM, "entry %" PRIu32 ": kind %" PRIu32 " appears twice", number, entry->kind);
    if (entry->first_op > h->ops || entry->ops > h->ops - entry->first_op || entry->first_port > h->ports ||
        entry->ports > h->ports - entry->first_port || entry->arena_bytes > h->arena_bytes)
        return ek_fail(error, EK_BAD_PROGRAM, "entry %" PRIu32 ": its ops, ports or arena are out of range", number);
    for (uint32_t i = 0; i < entry->ports; i++) {
        const ek_port *port = &program->ports[entry->first_port + i];
        if (ek_entry_port(program, entry, port->role, port->index) != port)
            return ek_fail(error, EK_BAD_PROGRAM, "entry %" PRIu32 ": port %" PRIu32 " appears twice", number, i);
    }
    return EK_OK;
}

static uint32_t ports_of(const ek_program *program, const ek_entry *entry, uint32_t role)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < entry->ports; i++)
        count += program->ports[entry->first_port + i].role == role;
    return count;
}

/* Prefix and suffix come together, and agree on what is between them. */
static ek_status check_halves(const ek_program *program, ek_error *error)
{
    const ek_entry *prefix = ek_program_entry(program, EK_PREFIX), *suffix = ek_program_entry(program, EK_SUFFIX);
    if (!prefix && !suffix)
        return EK_OK;
    if (!prefix || !suffix || !ek_program_entry(program, EK_TRAIN_STEP))
        return ek_fail(error, EK_BAD_PROGRAM, "prefix, suffix and train_step are not all there");
    if (ports_of(program, prefix, EK_PORT_BOUNDARY) != ports_of(program, suffix, EK_PORT_CACHED))
        return ek_fail(error, EK_BAD_PROGRAM, "suffix starts from other arrays than prefix makes");
    for (uint32_t i = 0; i < suffix->ports; i++) {
        const ek_port *cached = &program->ports[suffix->first_port + i];
        if (cached->role != EK_PORT_CACHED)
            continue;
        const ek_port *made = ek_entry_port(program, prefix, EK_PORT_BOUNDARY, cached->index);
        const ek_tensor *a = made ? &program->tensors[made->tensor] : NULL, *b = &program->tensors[cached->tensor];
        if (!a || a->dtype != b->dtype || a->rank != b->rank || memcmp(a->dim, b->dim, sizeof a->dim) != 0)
            return ek_fail(error, EK_BAD_PROGRAM, "array %u between prefix and suffix is not the same in both", cached->index);
    }
    return EK_OK;
}

static ek_status check_tables(const ek_program *program, ek_error *error)
{
    const ek_header *h = program->header;
    ek_status status = EK_OK;
    if (h->entries > EK_SUFFIX || h->ports > h->entries * EK_ABSENT)
        return ek_fail(error, EK_BAD_PROGRAM, "there are more entries or ports than there can be");
    for (uint32_t i = 0; i < h->tensors && status == EK_OK; i++)
        status = check_tensor(program, i, error);
    for (uint32_t i = 0; i < h->ops && status == EK_OK; i++)
        status = ek_check_op(program, i, error);
    for (uint32_t i = 0; i < h->ports && status == EK_OK; i++) {
        const char *wrong = check_port(program, &program->ports[i]);
        if (wrong)
            status = ek_fail(error, EK_BAD_PROGRAM, "port %" PRIu32 ": %s", i, wrong);
    }
    for (uint32_t i = 0; i < h->entries && status == EK_OK; i++)
        status = check_entry(program, i, error);
    if (status == EK_OK && h->accumulate > 1 && ek_program_entry(program, EK_TRAIN_STEP) && !ek_program_entry(program, EK_UPDATE))
        status = ek_fail(error, EK_BAD_PROGRAM, "it accumulates gradients and has no update entry");
    return status == EK_OK ? check_halves(program, error) : status;
}

ek_status ek_program_open(ek_program *program, const void *bytes, size_t size, ek_error *error)
{
    program->forget = NULL;
    ek_status status = check_header(bytes, size, error);
    if (status == EK_OK)
        status = check_board(bytes, error);
    if (status == EK_OK)
        status = find_parts(program, bytes, error);
    if (status == EK_OK)
        status = check_numbers(program->header, error);
    if (status == EK_OK)
        status = check_tables(program, error);
    return status;
}

ek_status ek_program_check_batch(const ek_program *program, ek_error *error)
{
    const ek_header *h = program->header;
    for (uint32_t i = 0; i < h->ports; i++) {
        const ek_port *port = &program->ports[i];
        const ek_tensor *t = &program->tensors[port->tensor];
        int sampled = port->role != EK_PORT_LOSS && port->role != EK_PORT_STEP;
        int some = port->role == EK_PORT_BOUNDARY || port->role == EK_PORT_CACHED;
        if (sampled && (t->rank < 1 || (some ? t->dim[0] % h->batch != 0 : t->dim[0] != h->batch)))
            return ek_fail(error, EK_BAD_PROGRAM, "port %" PRIu32 ": its first axis is not the batch of %" PRIu32, i, h->batch);
    }
    return EK_OK;
}

const ek_entry *ek_program_entry(const ek_program *program, uint32_t kind)
{
    for (uint32_t i = 0; i < program->header->entries; i++)
        if (program->entries[i].kind == kind)
            return &program->entries[i];
    return NULL;
}

const ek_port *ek_entry_port(const ek_program *program, const ek_entry *entry, uint32_t role, uint32_t index)
{
    for (uint32_t i = 0; i < entry->ports; i++) {
        const ek_port *port = &program->ports[entry->first_port + i];
        if (port->role == role && port->index == index)
            return port;
    }
    return NULL;
}
