/* Runs the entries of a verified Program. Its memory is one block: arena, state, scratch, prepared constants and
 * where they are. An op's operands are resolved as it runs: all of them, kept, would be more than a microcontroller's activations. */
#include "executor.h"

#include <inttypes.h>
#include <string.h>

enum { PART = 1 << 18 };

/* Where each part starts in the block. */
typedef struct {
    size_t arena, state, scratch, prepared, packed, end;
    size_t scratch_bytes, prepared_bytes;
} layout;

/* Place `bytes` at the next multiple of 64 from *end. 0 where the sizes overflow. */
static int place(size_t *end, uint64_t bytes, size_t *at)
{
    size_t start, stop;
    if (__builtin_add_overflow(*end, EK_ALIGN - 1, &start))
        return 0;
    start -= start % EK_ALIGN;
    if (bytes > SIZE_MAX || __builtin_add_overflow(start, (size_t)bytes, &stop))
        return 0;
    *at = start;
    *end = stop;
    return 1;
}

static void *address(const ek_program *program, uint8_t *arena, uint8_t *state, const ek_tensor *t)
{
    switch (t->storage) {
    case EK_ARENA:
        return arena + t->offset;
    case EK_STATE:
        return state + t->offset;
    default:
        return (uint8_t *)(uintptr_t)program->constants + t->offset; /* kernels do not write constants: the loader checked */
    }
}

/* An op's operands. With NULL for arena and state only the constants' addresses count. */
static ek_call resolve(const ek_program *program, const ek_op *op, uint8_t *arena, uint8_t *state)
{
    ek_call call = {.attrs = op->attr};
    for (int i = 0; i < EK_MAX_IN; i++)
        if (op->in[i] != EK_ABSENT)
            call.in_t[i] = &program->tensors[op->in[i]];
    for (int i = 0; i < EK_MAX_OUT; i++)
        if (op->out[i] != EK_ABSENT)
            call.out_t[i] = &program->tensors[op->out[i]];
    for (int i = 0; i < EK_MAX_IN; i++)
        if (call.in_t[i] && (arena || call.in_t[i]->storage == EK_CONSTANT))
            call.in[i] = address(program, arena, state, call.in_t[i]);
    for (int i = 0; i < EK_MAX_OUT; i++)
        if (call.out_t[i] && arena)
            call.out[i] = address(program, arena, state, call.out_t[i]);
    return call;
}

static const ek_kernel *kernel_of(const ek_backend *backend, const ek_op *op) { return backend->kernels[op->opcode]; }

static size_t scratch_of(const ek_kernel *kernel, const ek_call *call, int threads)
{
    return kernel->scratch_bytes ? kernel->scratch_bytes(call, threads) : 0;
}

static size_t prepared_of(const ek_kernel *kernel, const ek_call *call)
{
    return kernel->prepare && kernel->prepared_bytes ? kernel->prepared_bytes(call) : 0;
}

static int same_constant(const ek_program *program, uint16_t a, uint16_t b)
{
    const ek_tensor *first = a == EK_ABSENT ? NULL : &program->tensors[a], *second = b == EK_ABSENT ? NULL : &program->tensors[b];
    int constant = first && first->storage == EK_CONSTANT;
    if (constant != (second && second->storage == EK_CONSTANT))
        return 0;
    return !constant || memcmp(first, second, sizeof *first) == 0;
}

static int same_preparation(const ek_program *program, const ek_op *a, const ek_op *b)
{
    int same = a->opcode == b->opcode && memcmp(a->attr, b->attr, sizeof a->attr) == 0;
    for (int i = 0; same && i < EK_MAX_IN; i++)
        same = same_constant(program, a->in[i], b->in[i]);
    return same;
}

/* The first op that prepares the same constants into as many bytes, `number` where no earlier one does: training, evaluation and
 * prediction read the same frozen weights. */
static uint32_t prepared_by(const ek_program *program, const ek_kernel *kernel, uint32_t number, size_t bytes)
{
    for (uint32_t i = 0; i < number; i++) {
        if (!same_preparation(program, &program->ops[i], &program->ops[number]))
            continue;
        ek_call call = resolve(program, &program->ops[i], NULL, NULL);
        if (prepared_of(kernel, &call) == bytes)
            return i;
    }
    return number;
}

static ek_status plan(const ek_program *program, const ek_backend *backend, int threads, layout *to, ek_error *error)
{
    const ek_header *h = program->header;
    size_t part;
    int fits = 1;
    *to = (layout){0};
    for (uint32_t i = 0; i < h->ops; i++) {
        const ek_op *op = &program->ops[i];
        const ek_kernel *kernel = kernel_of(backend, op);
        if (op->opcode == EK_OP_RESHAPE)
            continue;
        if (!kernel)
            return ek_fail(error, EK_UNSUPPORTED_OP, "op %" PRIu32 ": backend %s has no kernel for opcode %u", i, backend->name, op->opcode);
        ek_call call = resolve(program, op, NULL, NULL);
        size_t scratch = scratch_of(kernel, &call, threads);
        if (scratch > to->scratch_bytes)
            to->scratch_bytes = scratch;
        size_t prepared = prepared_of(kernel, &call);
        if (prepared > 0 && prepared_by(program, kernel, i, prepared) == i)
            fits = fits && place(&to->prepared_bytes, prepared, &part);
    }
    fits = fits && place(&to->end, h->arena_bytes, &to->arena) && place(&to->end, h->state_bytes, &to->state) &&
           place(&to->end, to->scratch_bytes, &to->scratch) && place(&to->end, to->prepared_bytes, &to->prepared) &&
           place(&to->end, to->prepared_bytes ? (uint64_t)h->ops * sizeof(void *) : 0, &to->packed);
    if (!fits)
        return ek_fail(error, EK_NO_MEMORY, "the program needs more memory than this board can address");
    return EK_OK;
}

ek_status ek_executor_size(const ek_program *program, const ek_backend *backend, int threads, size_t *bytes, ek_error *error)
{
    layout parts;
    ek_status status = plan(program, backend, threads, &parts, error);
    *bytes = status == EK_OK ? parts.end : 0;
    return status;
}

static ek_call call_of(const ek_executor *executor, uint32_t number)
{
    ek_call call = resolve(&executor->program, &executor->program.ops[number], executor->arena, executor->state);
    call.scratch = executor->scratch;
    call.pool = executor->pool;
    call.prepared = executor->packed ? executor->packed[number] : NULL;
    return call;
}

/* Pack every op's constants. */
static void prepare(ek_executor *executor)
{
    const ek_program *program = &executor->program;
    size_t end = 0;
    for (uint32_t i = 0; executor->packed && i < program->header->ops; i++) {
        const ek_op *op = &program->ops[i];
        const ek_kernel *kernel = kernel_of(executor->backend, op);
        executor->packed[i] = NULL;
        if (op->opcode == EK_OP_RESHAPE)
            continue;
        /* The same question as in plan(), so that both get the same answer. */
        ek_call constants = resolve(program, op, NULL, NULL);
        size_t bytes = prepared_of(kernel, &constants), at = 0;
        uint32_t first = bytes > 0 ? prepared_by(program, kernel, i, bytes) : i;
        if (first < i) {
            executor->packed[i] = executor->packed[first];
        } else if (bytes > 0) {
            place(&end, bytes, &at);
            ek_call call = call_of(executor, i);
            kernel->prepare(&call, executor->prepared + at);
            executor->packed[i] = executor->prepared + at;
        }
    }
    if (program->forget)
        program->forget(program->constants, (size_t)program->header->constants_bytes); /* what is packed is not read again */
}

ek_status ek_executor_load(ek_executor *executor, const ek_program *program, const ek_backend *backend, ek_pool *pool, void *memory,
                           ek_error *error)
{
    layout parts;
    ek_status status = plan(program, backend, ek_pool_threads(pool), &parts, error);
    if (status != EK_OK)
        return status;
    uint8_t *base = memory;
    *executor = (ek_executor){
        .program = *program,
        .backend = backend,
        .pool = pool,
        .arena = base + parts.arena,
        .state = base + parts.state,
        .scratch = base + parts.scratch,
        .prepared = base + parts.prepared,
        .scratch_bytes = parts.scratch_bytes,
        .prepared_bytes = parts.prepared_bytes,
        .end = base + parts.end,
        .packed = parts.prepared_bytes ? (const void **)(void *)(base + parts.packed) : NULL,
    };
    prepare(executor);
    ek_executor_reset(executor);
    return EK_OK;
}

void ek_executor_fill(ek_executor *executor, const uint8_t *from, size_t bytes)
{
    const ek_program *program = &executor->program;
    for (size_t at = 0, part; at < bytes; at += part) {
        part = bytes - at < PART ? bytes - at : PART;
        memcpy(executor->state + at, from + at, part);
        if (program->forget)
            program->forget(from, at + part); /* from the start: a page fault may have brought pages before it back */
    }
}

void ek_executor_reset(ek_executor *executor)
{
    const ek_header *h = executor->program.header;
    ek_executor_fill(executor, executor->program.state_init, (size_t)h->state_init_bytes);
    memset(executor->state + h->state_init_bytes, 0, (size_t)(h->state_bytes - h->state_init_bytes));
}

void *ek_executor_data(const ek_executor *executor, uint32_t tensor)
{
    return address(&executor->program, executor->arena, executor->state, &executor->program.tensors[tensor]);
}

static void run_op(const ek_executor *executor, uint32_t number)
{
    const ek_op *op = &executor->program.ops[number];
    ek_call call = call_of(executor, number);
    if (op->opcode != EK_OP_RESHAPE)
        kernel_of(executor->backend, op)->run(&call);
    else if (call.out[0] != call.in[0])
        memmove(call.out[0], call.in[0], (size_t)call.out_t[0]->bytes);
}

static uint64_t now(const ek_executor *executor) { return executor->clock ? executor->clock() : 0; }

void ek_executor_run(ek_executor *executor, const ek_entry *entry)
{
    for (uint32_t i = entry->first_op; i < entry->first_op + entry->ops; i++) {
        const ek_op *op = &executor->program.ops[i];
        int timed = executor->times || op->opcode == EK_OP_SGD_UPDATE;
        uint64_t start = timed ? now(executor) : 0;
        run_op(executor, i);
        uint64_t ns = timed ? now(executor) - start : 0;
        if (op->opcode == EK_OP_SGD_UPDATE)
            executor->update_ns += ns;
        if (executor->times) {
            executor->times[i].runs++;
            executor->times[i].ns += ns;
        }
        if (executor->poll)
            executor->poll(executor->poll_context);
    }
}
