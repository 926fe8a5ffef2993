/* run_once PROGRAM.ekp ENTRY [INPUTS.bin OUTPUTS.bin] [--isa NAME] [--threads N] [--runs N] [--arena FILE] [--dump FILE]
 * run_once --list
 *
 * Runs one entry (train_step, update, evaluate or predict, or its number) of a Program, for tests: once, or `runs` times from the same
 * start. The arena begins as zeros or as what --arena holds; the input, target and step ports are filled in port order from the raw
 * bytes of INPUTS.bin. After the last run the loss, output and correct ports in port order, and after them the whole state region,
 * go to OUTPUTS.bin. After each run the arena and the state go to --dump. A kernel that writes past its scratch memory is an error.
 * --list prints the backends that this processor can run.
 * The exit code is an ek_status; the message goes to stderr. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor.h"
#include "pool_posix.h"

enum { MORE = 64 }; /* bytes after the program's memory */

typedef struct {
    const char *program, *inputs, *outputs, *isa, *arena, *dump;
    uint32_t entry;
    int threads, runs;
} arguments;

/* An entry kind by name or number, 0 where it is neither. */
static uint32_t entry_kind(const char *word)
{
    static const char *const names[] = {"train_step", "update", "evaluate", "predict"};
    for (uint32_t i = 0; i < 4; i++)
        if (strcmp(word, names[i]) == 0)
            return i + 1;
    return (uint32_t)strtoul(word, NULL, 10);
}

static int parse_option(const char *name, const char *value, arguments *to)
{
    if (strcmp(name, "--isa") == 0)
        to->isa = value;
    else if (strcmp(name, "--arena") == 0)
        to->arena = value;
    else if (strcmp(name, "--dump") == 0)
        to->dump = value;
    else if (strcmp(name, "--threads") == 0)
        to->threads = atoi(value);
    else if (strcmp(name, "--runs") == 0)
        to->runs = atoi(value);
    else
        return 0;
    return 1;
}

static ek_status parse(int count, char **words, arguments *to, ek_error *error)
{
    *to = (arguments){.threads = 1, .runs = 1};
    int i = 3, good = count >= 3 && count % 2 == 1;
    if (good) {
        to->program = words[1];
        to->entry = entry_kind(words[2]);
    }
    if (good && count >= 5 && words[3][0] != '-') {
        to->inputs = words[3];
        to->outputs = words[4];
        i = 5;
    }
    for (; good && i < count; i += 2)
        good = parse_option(words[i], words[i + 1], to);
    return good ? EK_OK : ek_fail(error, EK_BAD_REQUEST, "wrong arguments: see the head of run_once.c");
}

/* Exactly `bytes` (at least one), aligned, so that a sanitizer sees every step past them. */
static void *allocate(size_t bytes)
{
    void *memory = NULL;
    return posix_memalign(&memory, EK_ALIGN, bytes > 0 ? bytes : 1) == 0 ? memory : NULL;
}

/* The whole file in memory of its own. */
static ek_status read_file(const char *path, void **bytes, size_t *size, ek_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return ek_fail(error, EK_NOT_FOUND, "%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    long end = ftell(file);
    rewind(file);
    *size = end > 0 ? (size_t)end : 0;
    *bytes = allocate(*size);
    ek_status status = EK_OK;
    if (!*bytes)
        status = ek_fail(error, EK_NO_MEMORY, "%s: no memory for %zu bytes", path, *size);
    else if (end < 0 || fread(*bytes, 1, *size, file) != *size)
        status = ek_fail(error, EK_IO, "%s: cannot be read", path);
    fclose(file);
    return status;
}

/* The backend of a name, or the best that this processor can run. */
static ek_status choose_backend(const char *name, const ek_backend **backend, ek_error *error)
{
    for (int i = 0; ek_backends[i]; i++) {
        *backend = ek_backends[i];
        if ((!name || strcmp(name, (*backend)->name) == 0) && (*backend)->usable())
            return EK_OK;
    }
    return ek_fail(error, EK_BAD_REQUEST, "no backend %s that this processor can run", name ? name : "at all");
}

static int list_backends(void)
{
    for (int i = 0; ek_backends[i]; i++)
        if (ek_backends[i]->usable())
            puts(ek_backends[i]->name);
    return 0;
}

static int is_input(const ek_port *port)
{
    return port->role == EK_PORT_INPUT || port->role == EK_PORT_TARGET || port->role == EK_PORT_STEP;
}

static ek_status fill_ports(const ek_executor *executor, const ek_entry *entry, const char *path, ek_error *error)
{
    void *bytes = NULL;
    size_t size = 0, at = 0;
    ek_status status = read_file(path, &bytes, &size, error);
    for (uint32_t i = 0; i < entry->ports && status == EK_OK; i++) {
        const ek_port *port = &executor->program.ports[entry->first_port + i];
        size_t wanted = (size_t)executor->program.tensors[port->tensor].bytes;
        if (!is_input(port))
            continue;
        if (wanted > size - at)
            status = ek_fail(error, EK_BAD_DATA, "%s: %zu bytes do not fill port %u", path, size, (unsigned)i);
        else
            memcpy(ek_executor_data(executor, port->tensor), (uint8_t *)bytes + at, wanted);
        at += wanted;
    }
    if (status == EK_OK && at != size)
        status = ek_fail(error, EK_BAD_DATA, "%s: %zu bytes, the ports take %zu", path, size, at);
    free(bytes);
    return status;
}

static ek_status fill_arena(const ek_executor *executor, const char *path, ek_error *error)
{
    void *bytes = NULL;
    size_t size = 0, arena = (size_t)executor->program.header->arena_bytes;
    ek_status status = read_file(path, &bytes, &size, error);
    if (status == EK_OK && size != arena)
        status = ek_fail(error, EK_BAD_DATA, "%s: %zu bytes, the arena has %zu", path, size, arena);
    if (status == EK_OK)
        memcpy(executor->arena, bytes, size);
    free(bytes);
    return status;
}

/* Arena and state as they are before a run. */
static ek_status start(ek_executor *executor, const ek_entry *entry, const arguments *given, ek_error *error)
{
    ek_status status = EK_OK;
    memset(executor->arena, 0, (size_t)executor->program.header->arena_bytes);
    ek_executor_reset(executor);
    if (given->arena)
        status = fill_arena(executor, given->arena, error);
    if (status == EK_OK && given->inputs)
        status = fill_ports(executor, entry, given->inputs, error);
    return status;
}

static int write_state(const ek_executor *executor, FILE *file)
{
    size_t state = (size_t)executor->program.header->state_bytes;
    return fwrite(executor->state, 1, state, file) == state;
}

static int write_image(const ek_executor *executor, FILE *file)
{
    size_t arena = (size_t)executor->program.header->arena_bytes;
    return fwrite(executor->arena, 1, arena, file) == arena && write_state(executor, file);
}

static int write_ports(const ek_executor *executor, const ek_entry *entry, FILE *file)
{
    const ek_program *program = &executor->program;
    int good = 1;
    for (uint32_t i = 0; i < entry->ports; i++) {
        const ek_port *port = &program->ports[entry->first_port + i];
        size_t bytes = (size_t)program->tensors[port->tensor].bytes;
        if (!is_input(port))
            good &= fwrite(ek_executor_data(executor, port->tensor), 1, bytes, file) == bytes;
    }
    return good && write_state(executor, file);
}

/* Open a file to write, or NULL where no path is given. */
static ek_status open_output(const char *path, FILE **file, ek_error *error)
{
    *file = path ? fopen(path, "wb") : NULL;
    return path && !*file ? ek_fail(error, EK_IO, "%s: %s", path, strerror(errno)) : EK_OK;
}

/* Close what open_output opened. `good`: all was written until now. */
static ek_status close_output(const char *path, FILE *file, int good, ek_error *error)
{
    good &= !file || fclose(file) == 0;
    return good ? EK_OK : ek_fail(error, EK_IO, "%s: cannot be written", path);
}

/* FNV-1a over what lies after the scratch memory, the packed constants and some bytes more: no kernel may write there. */
static uint64_t fingerprint(const ek_executor *executor)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (const uint8_t *at = executor->prepared; at < executor->end + MORE; at++)
        hash = (hash ^ *at) * 0x100000001B3u;
    return hash;
}

static ek_status run_and_write(ek_executor *executor, const ek_entry *entry, const arguments *given, ek_error *error)
{
    FILE *dump, *outputs;
    int good = 1;
    ek_status status = open_output(given->dump, &dump, error);
    if (status != EK_OK)
        return status;
    for (int i = 0; i < given->runs && status == EK_OK; i++) {
        status = start(executor, entry, given, error);
        if (status != EK_OK)
            break;
        uint64_t before = fingerprint(executor);
        ek_executor_run(executor, entry);
        if (fingerprint(executor) != before)
            status = ek_fail(error, EK_UNKNOWN, "a kernel wrote past its scratch memory");
        good &= !dump || write_image(executor, dump);
    }
    ek_status closed = close_output(given->dump, dump, good, error);
    if (status == EK_OK)
        status = closed;
    if (status == EK_OK)
        status = open_output(given->outputs, &outputs, error);
    if (status == EK_OK)
        status = close_output(given->outputs, outputs, !outputs || write_ports(executor, entry, outputs), error);
    return status;
}

static ek_status run(const arguments *given, const ek_program *program, ek_pool *pool, void **memory, ek_error *error)
{
    ek_executor executor;
    const ek_backend *backend;
    const ek_entry *entry = ek_program_entry(program, given->entry);
    size_t bytes;
    if (!entry)
        return ek_fail(error, EK_NOT_FOUND, "the program has no entry of kind %u", (unsigned)given->entry);
    ek_status status = choose_backend(given->isa, &backend, error);
    if (status == EK_OK)
        status = ek_executor_size(program, backend, ek_pool_threads(pool), &bytes, error);
    if (status != EK_OK)
        return status;
    *memory = bytes < PTRDIFF_MAX - MORE ? allocate(bytes + MORE) : NULL;
    if (!*memory)
        return ek_fail(error, EK_NO_MEMORY, "no memory for %zu bytes", bytes);
    memset((uint8_t *)*memory + bytes, 0xA5, MORE);
    status = ek_executor_load(&executor, program, backend, pool, *memory, error);
    return status == EK_OK ? run_and_write(&executor, entry, given, error) : status;
}

int main(int count, char **words)
{
    arguments given;
    ek_program program;
    ek_error error;
    void *bytes = NULL, *memory = NULL;
    ek_pool *pool = NULL;
    size_t size = 0;
    if (count == 2 && strcmp(words[1], "--list") == 0)
        return list_backends();
    ek_status status = parse(count, words, &given, &error);
    if (status == EK_OK)
        status = read_file(given.program, &bytes, &size, &error);
    if (status == EK_OK)
        status = ek_program_open(&program, bytes, size, &error);
    if (status == EK_OK && !(pool = ek_pool_create(given.threads)))
        status = ek_fail(&error, EK_NO_MEMORY, "cannot start %d threads", given.threads);
    if (status == EK_OK)
        status = run(&given, &program, pool, &memory, &error);
    if (status != EK_OK)
        fprintf(stderr, "run_once: %s\n", error.text);
    ek_pool_destroy(pool);
    free(memory);
    free(bytes);
    return (int)status;
}
