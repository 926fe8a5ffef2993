/* The runner on a microcontroller: one thread that answers messages and trains, between two ops as between two steps. */
#include <string.h>

#include "../serial/filegroup.h"
#include "../serial/imagegroup.h"
#include "clock.h"
#include "core.h"
#include "fault.h"
#include "flash.h"
#include "log.h"
#include "mcu.h"
#include "programs.h"
#include "stack.h"
#include "store.h"

#ifndef EK_VERSION
#define EK_VERSION "0.0.0"
#endif

enum { BAUD = 115200, WATCHDOG_MS = 20000 /* longer than any op */, TRIAL_SECONDS = 600 /* that an image has to be confirmed in */ };

extern uint8_t ek_region_start[], ek_region_end[], ek_ram_start[];

static ek_training training;
static ek_files files;
static ek_images images;
static ek_serial serial;
static ek_platform platform;

static void read_sensors(const ek_path *paths, ek_readings *readings) {
    (void)paths;
    *readings = (ek_readings){.rss_known = true};
    readings->rss_bytes = (uint64_t)(ek_region_start - ek_ram_start) - ek_stack_bytes() + ek_stack_peak() + ek_store_peak();
}

static void set_platform_up(const char *reset) {
    platform = (ek_platform){
        .board = {.version = EK_VERSION, .architecture = "armv7e-m", .backend = "cortex-m", .isa = ek_backends[0]->name,
                  .port = ek_mcu_name, .reset = reset, .stack_peak = ek_stack_peak, .threads = 1, .cores = 1,
                  .memory_bytes = (uint64_t)(ek_region_end - ek_ram_start)},
        .clock = ek_clock_ns,
        .read_sensors = read_sensors,
    };
    ek_store_join(&platform);
    ek_programs_join(&platform, ek_mcu_flash());
}

/* Another number at each start: how often the board started since it has power, and when somebody first spoke to it. */
static uint64_t new_instance(void) {
    __attribute__((section(".noinit"))) static uint32_t starts;
    return (uint64_t)++starts << 40 | (ek_clock_ns() & 0xFFFFFFFFFFull);
}

static void attend(void *context) {
    static uint32_t fed;
    (void)context;
    if (fed != ek_clock_ticks()) {
        fed = ek_clock_ticks();
        ek_mcu_watchdog_feed();
    }
    if (!platform.instance && ek_ring_held(&ek_mcu_line.in))
        platform.instance = new_instance();
    while (ek_serial_serve(&serial))
        ;
}

static void set_runner_up(void) {
    static ek_smp_group groups[3];
    static ek_smp_server server;
    training.platform = &platform;
    training.backend = ek_backends[0];
    training.poll = attend;
    ek_training_init(&training);
    files.platform = &platform;
    groups[0] = (ek_smp_group){EK_TRAINING_GROUP, ek_training_commands, &training};
    groups[1] = (ek_smp_group){EK_FILE_GROUP, ek_file_commands, &files};
    images = (ek_images){.flash = ek_mcu_flash(), .key = ek_image_key, .running = ek_mcu_flash_running()};
    groups[2] = (ek_smp_group){EK_IMAGE_GROUP, ek_image_commands, &images};
    server = (ek_smp_server){groups, 3, EK_SERIAL_BUFFER, ek_training_end, &training};
    serial = (ek_serial){.line = &ek_mcu_line, .server = &server, .training = &training, .clock = ek_clock_ns, .log = &ek_log_ring};
    ek_serial_init(&serial);
}

/* Firmware that nobody confirms in time goes: a host that cannot reach it could not ask for a reset either. */
static void mind_trial(void) {
    static bool over;
    if (over || ek_clock_ns() / 1000000000u < TRIAL_SECONDS)
        return;
    over = true;
    if (ek_images_on_trial(&images))
        ek_fault_panic("the firmware was not confirmed in time");
}

/* What happens to sessions, for people. */
static void tell_session(void) {
    static uint32_t told;
    static ek_session_state as;
    const ek_session *s = &training.session;
    if (s->id == told && s->state == as)
        return;
    told = s->id;
    as = s->state;
    if (as == EK_FAILED)
        ek_log("session %lu failed: %s", (unsigned long)told, s->error.text);
    else
        ek_log("session %lu: %s, step %lu of %lu", (unsigned long)told, ek_state_name(as), (unsigned long)s->step,
               (unsigned long)s->steps);
}

/* Sleep until something happens. An interrupt that comes before the sleep ends it at once. */
static void rest(void) {
    uint32_t before = ek_interrupts_off();
    if (!ek_ring_held(&ek_mcu_line.in))
        ek_wait_for_interrupt();
    ek_interrupts_restore(before);
}

static void run(void) {
    while (!training.ending || ek_ring_held(&ek_mcu_line.out) || !ek_mcu_line.idle()) {
        attend(NULL);
        tell_session();
        mind_trial();
        if (ek_training_steps(&training))
            ek_session_step(&training.session);
        else
            rest();
    }
}

int main(void) {
    const char *reset = ek_fault_reason();
    ek_clock_start();
    ek_store_open(ek_region_start, (size_t)(ek_region_end - ek_region_start));
    set_platform_up(reset);
    set_runner_up();
    ek_mcu_uart_open(BAUD);
    ek_mcu_watchdog_start(WATCHDOG_MS);
    ek_log("edgekit %s on %s, slot %d%s: %s; %lu bytes for programs and data", EK_VERSION, ek_mcu_name, images.running,
           ek_images_on_trial(&images) ? " (on trial)" : "", reset, (unsigned long)platform.memory_limit);
    run();
    ek_fault_reset();
}
