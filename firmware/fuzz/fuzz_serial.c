/* A fuzz target (LLVM's interface): whatever bytes come over a serial line, framing, messages, the file group and the image group stay within their
 * memory, every answer is a whole frame that fits, and the board still answers afterwards.
 *
 * The input's bytes go through the deframer as they are; those after the first `FF 00` are wrapped into COBS frames first, so that a
 * fuzzer, which does not find CRCs, reaches what lies behind them. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "../cortex_m/programs.h"
#include "../cortex_m/store.h"
#include "../serial/filegroup.h"
#include "../serial/imagegroup.h"
#include "../serial/serial.h"

#define EK_RAM_SLOT 4096
#define EK_RAM_PROGRAM 4096
#include "../tools/ram_flash.h"

enum { IN = 8192, OUT = 4096, REGION = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Alignas(64) uint8_t region[REGION];
static uint8_t in[IN], out[OUT], log_bytes[256];
static ek_line line;
static ek_serial serial;
static ek_deframer host;
static uint8_t answer[EK_SERIAL_BUFFER + EK_FRAME_EXTRA];
static size_t answers;
static uint64_t now;

static uint64_t clock_ns(void) { return now += 1000000; }
static bool idle(void) { return true; }
static bool set_baud(uint32_t baud) { return baud < 1000000; }
static void no_sensors(const ek_path *paths, ek_readings *readings) { (void)paths, (void)readings; }

/* What a host reads: frames that are whole. */
static void take_answers(void) {
    uint8_t byte;
    while (ek_ring_get(&line.out, &byte)) {
        ek_frame frame = ek_deframer_take(&host, byte);
        if (frame.framing && frame.kind == EK_FRAME_MESSAGE) {
            if (frame.size < EK_SMP_HEADER || frame.size != EK_SMP_HEADER + (size_t)ek_smp_header_read(frame.payload).length)
                abort();
            answers++;
        }
    }
}

static void serve(void) {
    while (ek_serial_serve(&serial))
        ;
    take_answers();
}

static void to_board(void *context, uint8_t byte) {
    (void)context;
    while (!ek_ring_put(&line.in, byte))
        serve();
}

static ek_platform platform = {
    .board = {.version = "0", .architecture = "any", .backend = "cpu", .isa = "plain", .threads = 1, .cores = 1},
    .clock = clock_ns,
    .read_sensors = no_sensors,
};

static const ek_kernel *const no_kernels[EK_OPCODES];
static const ek_backend backend = {.name = "none", .kernels = no_kernels};

/* Pieces of what is left, each begun by its length and kind, as frames. */
static void send_frames(const uint8_t *data, size_t size) {
    while (size >= 3) {
        size_t length = (size_t)data[0] | (size_t)(data[1] & 7) << 8;
        uint8_t kind = data[2];
        data += 3, size -= 3;
        length = length < size ? length : size;
        if (length <= EK_SERIAL_BUFFER)
            ek_frame_write(EK_COBS, kind, data, length, to_board, NULL);
        serve();
        data += length, size -= length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ek_training training;
    static ek_files files;
    static ek_images images;
    static ek_ring log = {.bytes = log_bytes, .size = sizeof log_bytes};
    static const uint8_t echo[] = {0x0A, 0, 0, 5, 0, 0, 77, 0, 0xA1, 0x61, 'd', 0x61, 'x'};
    memset(&training, 0, sizeof training);
    memset(&files, 0, sizeof files);
    ek_store_open(region, REGION);
    ek_store_join(&platform);
    memset(ek_ram_flash_bytes, 0xFF, sizeof ek_ram_flash_bytes);
    ek_programs_join(&platform, &ek_ram_flash);
    training.platform = files.platform = &platform;
    training.backend = &backend;
    ek_training_init(&training);
    images = (ek_images){.flash = &ek_ram_flash, .key = ek_image_key};
    ek_smp_group groups[] = {{EK_TRAINING_GROUP, ek_training_commands, &training}, {EK_FILE_GROUP, ek_file_commands, &files},
                             {EK_IMAGE_GROUP, ek_image_commands, &images}};
    ek_smp_server server = {groups, 3, EK_SERIAL_BUFFER, ek_training_end, &training};
    line = (ek_line){.in = {.bytes = in, .size = IN}, .out = {.bytes = out, .size = OUT}, .send = take_answers, .baud = 115200,
                     .set_baud = set_baud, .idle = idle};
    serial = (ek_serial){.line = &line, .server = &server, .training = &training, .clock = clock_ns, .log = &log};
    ek_serial_init(&serial);
    ek_deframer_init(&host, answer, sizeof answer);

    const uint8_t *mark = size >= 2 ? memmem(data, size, "\xFF\x00", 2) : NULL;
    size_t raw = mark ? (size_t)(mark - data) : size;
    for (size_t i = 0; i < raw; i++)
        to_board(NULL, data[i]);
    serve();
    if (mark)
        send_frames(mark + 2, size - raw - 2);

    answers = 0;
    for (int i = 0; i < 2; i++) { /* the first ends what noise may have begun */
        ek_frame_write(EK_COBS, EK_FRAME_MESSAGE, echo, sizeof echo, to_board, NULL);
        serve();
    }
    if (!answers)
        abort();
    return 0;
}
