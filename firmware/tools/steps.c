/* The training steps of a Program that is part of the image (its frozen weights stay in flash), for benchmarks: what memory they take
 * and how long each op runs is written through the debugger's channel (Arm: Semihosting for AArch32 and AArch64), as lines of
 * numbers. Inputs are zeros. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../cortex_m/clock.h"
#include "../cortex_m/core.h"
#include "executor.h"
#include "../cortex_m/fault.h"
#include "../cortex_m/stack.h"

enum { STEPS = 2, WRITE_TEXT = 0x04, EXIT = 0x18, APPLICATION_EXIT = 0x20026 };

extern uint8_t ek_region_start[], ek_region_end[], ek_ram_start[];
extern const uint8_t ek_resident_start[], ek_resident_end[];

static void ask_debugger(uint32_t what, uintptr_t with) {
    register uint32_t r0 __asm("r0") = what;
    register uintptr_t r1 __asm("r1") = with;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

#define TELL(...) (snprintf(line, sizeof line, __VA_ARGS__), ask_debugger(WRITE_TEXT, (uintptr_t)line))
static char line[256];

/* A block of the region; NULL where it does not fit. */
static void *take(size_t *used, size_t bytes) {
    size_t room = (size_t)(ek_region_end - ek_region_start), at = *used;
    if (bytes > room - at)
        return NULL;
    *used = (at + bytes + EK_ALIGN - 1) / EK_ALIGN * EK_ALIGN;
    *used = *used < room ? *used : room;
    return ek_region_start + at;
}

static void tell_memory(const ek_executor *e) {
    const ek_header *h = e->program.header;
    uint32_t statics = (uint32_t)(ek_region_start - ek_ram_start) - ek_stack_bytes() + ek_stack_peak();
    TELL("memory arena %lu state %lu scratch %lu prepared %lu constants %lu firmware %lu ram %lu\n", (unsigned long)h->arena_bytes,
         (unsigned long)h->state_bytes, (unsigned long)e->scratch_bytes, (unsigned long)e->prepared_bytes,
         (unsigned long)h->constants_bytes, (unsigned long)statics, (unsigned long)(ek_region_end - ek_ram_start));
}

static void tell_loss(const ek_executor *e, const ek_entry *entry, uint64_t ns) {
    const ek_port *loss = ek_entry_port(&e->program, entry, EK_PORT_LOSS, 0);
    uint32_t bits = 0;
    if (loss)
        memcpy(&bits, ek_executor_data(e, loss->tensor), sizeof bits);
    TELL("step ns %llu loss 0x%08lx\n", (unsigned long long)ns, (unsigned long)bits);
}

static void run(ek_executor *e, const ek_entry *entry, uint64_t first, ek_op_time *times) {
    for (uint64_t i = 0; i < STEPS; i++) {
        memset(e->arena, 0, (size_t)e->program.header->arena_bytes);
        uint64_t start = ek_clock_ns();
        ek_executor_run(e, entry);
        tell_loss(e, entry, ek_clock_ns() - start);
    }
    tell_memory(e);
    for (uint32_t i = 0; times && i < entry->ops; i++)
        TELL("op %lu ns %llu\n", (unsigned long)(first + i), (unsigned long long)(times[first + i].ns / STEPS));
}

static ek_status steps(ek_error *error) {
    ek_program program;
    ek_executor executor;
    size_t used = 0, bytes, size = (size_t)(ek_resident_end - ek_resident_start);
    ek_status status = ek_program_open(&program, ek_resident_start, size, error);
    if (status == EK_OK)
        status = ek_executor_size(&program, ek_backends[0], 1, &bytes, error);
    if (status != EK_OK)
        return status;
    void *memory = take(&used, bytes);
    if (!memory)
        return ek_fail(error, EK_NO_MEMORY, "the program takes %zu bytes of memory", bytes);
    status = ek_executor_load(&executor, &program, ek_backends[0], NULL, memory, error);
    const ek_entry *entry = status == EK_OK ? ek_program_entry(&program, EK_TRAIN_STEP) : NULL;
    if (!entry)
        return status == EK_OK ? ek_fail(error, EK_NOT_FOUND, "the program has no train_step") : status;
    executor.clock = ek_clock_ns;
    executor.times = take(&used, program.header->ops * sizeof *executor.times); /* not there where memory is short */
    if (executor.times)
        memset(executor.times, 0, program.header->ops * sizeof *executor.times);
    run(&executor, entry, entry->first_op, executor.times);
    return EK_OK;
}

int main(void) {
    ek_error error;
    ek_clock_start();
    if (steps(&error) != EK_OK)
        TELL("error %s\n", error.text);
    ask_debugger(EXIT, APPLICATION_EXIT);
    ek_fault_reset();
}
