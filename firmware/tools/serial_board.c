/* The runner of a microcontroller as a process: its serial line is stdin and stdout, its memory a static region. For tests and
 * benchmarks of the line, which an emulator would make slow.
 *
 *     serial_board [KiB of the region, at most and by default 4096] */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../cortex_m/programs.h"
#include "../cortex_m/store.h"
#include "../serial/filegroup.h"
#include "../serial/imagegroup.h"
#include "../serial/serial.h"
#include "ram_flash.h"

enum { IN = 8192, OUT = 4096, LOG = 1024, REGION = 4 << 20, IDLE_MS = 100 };

static _Alignas(64) uint8_t region[REGION];
static uint8_t in[IN], out[OUT], log_bytes[LOG];
static ek_ring log_ring = {.bytes = log_bytes, .size = LOG};
static ek_training training;
static ek_files files;
static ek_images images;
static ek_serial serial;
static bool ended;

static void send_out(void);
static bool idle(void) { return true; }
static bool set_baud(uint32_t baud) { return baud <= 921600; }

static ek_line line = {.in = {.bytes = in, .size = IN}, .out = {.bytes = out, .size = OUT}, .send = send_out,
                       .baud = 115200, .set_baud = set_baud, .idle = idle};

/* What a UART's interrupt does. */
static void send_out(void) {
    uint8_t bytes[OUT];
    size_t size = 0;
    while (size < sizeof bytes && ek_ring_get(&line.out, &bytes[size]))
        size++;
    for (size_t at = 0; at < size;) {
        ssize_t n = write(STDOUT_FILENO, bytes + at, size - at);
        if (n > 0)
            at += (size_t)n;
        else if (errno != EINTR)
            return; /* nobody listens: as on a line */
    }
}

static void receive(int wait_ms) {
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    uint8_t bytes[IN];
    size_t room = ek_ring_room(&line.in);
    if (room == 0 || poll(&ready, 1, wait_ms) <= 0)
        return;
    ssize_t n = read(STDIN_FILENO, bytes, room);
    ended |= n <= 0;
    for (ssize_t i = 0; i < n; i++)
        ek_ring_put(&line.in, bytes[i]);
}

static void attend(void *context) {
    (void)context;
    receive(0);
    while (ek_serial_serve(&serial))
        ;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void read_sensors(const ek_path *paths, ek_readings *readings) {
    (void)paths;
    *readings = (ek_readings){.rss_known = true, .rss_bytes = ek_store_peak()};
}

#if defined(__x86_64__)
#define ARCHITECTURE "x86_64"
#else
#define ARCHITECTURE "aarch64"
#endif

static ek_platform platform = {
    .board = {.version = EK_VERSION, .architecture = ARCHITECTURE, .backend = "cpu", .reset = "power-on", .threads = 1, .cores = 1},
    .clock = now_ns,
    .read_sensors = read_sensors,
};

static const ek_backend *usable_backend(void) {
    int i = 0;
    while (ek_backends[i + 1] && ek_backends[i]->usable && !ek_backends[i]->usable())
        i++;
    return ek_backends[i];
}

int main(int count, char **words) {
    size_t kib = count > 1 ? strtoul(words[1], NULL, 10) : REGION / 1024;
    if (kib == 0 || kib > REGION / 1024) {
        fprintf(stderr, "usage: serial_board [KiB, at most %d]\n", REGION / 1024);
        return 2;
    }
    ek_store_open(region, kib * 1024);
    ek_store_join(&platform);
    memset(ek_ram_flash_bytes, 0xFF, sizeof ek_ram_flash_bytes);
    ek_programs_join(&platform, &ek_ram_flash);
    platform.instance = now_ns();
    training.platform = &platform;
    training.backend = usable_backend();
    platform.board.isa = training.backend->name;
    training.poll = attend;
    ek_training_init(&training);
    files.platform = &platform;
    images = (ek_images){.flash = &ek_ram_flash, .key = ek_image_key};
    ek_smp_group groups[] = {{EK_TRAINING_GROUP, ek_training_commands, &training}, {EK_FILE_GROUP, ek_file_commands, &files},
                             {EK_IMAGE_GROUP, ek_image_commands, &images}};
    ek_smp_server server = {groups, 3, EK_SERIAL_BUFFER, ek_training_end, &training};
    serial = (ek_serial){.line = &line, .server = &server, .training = &training, .clock = now_ns, .log = &log_ring};
    ek_serial_init(&serial);
    for (const char *c = "serial_board\n"; *c; c++)
        ek_ring_put(&log_ring, (uint8_t)*c);
    while (!ended && !training.ending) {
        attend(NULL);
        if (ek_training_steps(&training))
            ek_session_step(&training.session);
        else
            receive(IDLE_MS);
    }
    return 0;
}
