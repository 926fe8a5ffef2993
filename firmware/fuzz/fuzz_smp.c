/* A fuzz target (LLVM's interface): whatever messages come, in a row, each gets one answer of at most a buffer, and nothing is
 * read outside them. Files do not exist here and nothing is loaded, so that an input takes microseconds.
 *
 * The input is a row of messages as a link would deliver them: the header's length delimits them, the last may be cut. */
#include <stdlib.h>
#include <string.h>

#include "../runner/training.h"

enum { BUFFER = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t stopped_clock(void) { return 0; }

static ek_status no_file(const char *path, ek_file *file, ek_error *error)
{
    (void)file;
    return ek_fail(error, EK_NOT_FOUND, "cannot open %.160s", path);
}

static ek_status no_new_file(ek_new_file *file, const char *path, ek_error *error)
{
    file->handle = -1;
    return ek_fail(error, EK_PERMISSION, "cannot create %.160s", path);
}

static const ek_platform platform = {
    .board = {.version = "0", .architecture = "any", .isa = "plain", .threads = 1, .cores = 1},
    .clock = stopped_clock,
    .allocate = malloc,
    .release = free,
    .map = no_file,
    .create = no_new_file,
};

/* Records, times and a state to tell of. `running` and `failed` sessions answer differently. */
static void set_scene(ek_training *training, uint8_t choice)
{
    static ek_op_time times[300];
    ek_session *session = &training->session;
    session->state = choice % 5;
    training->records.next = (uint64_t)choice * 64;
    if (choice & 1)
        session->metrics = (ek_metrics){.known = true, .has_loss = choice & 2, .loss_sum = 1, .weight = choice & 4};
    if (choice & 8) {
        session->times = times;
        session->profiled = sizeof times / sizeof times[0];
    }
    ek_fail(&session->error, EK_IO, "\xE2\x9C"); /* as a text that was cut inside a character */
}

/* What a link reads: from an exact copy, so that a read past the message is seen. */
static void answer(const ek_smp_server *server, const uint8_t *message, size_t size)
{
    uint8_t *request = malloc(size), *response = malloc(BUFFER);
    memcpy(request, message, size);
    size_t bytes = ek_smp_handle(server, request, size, response);
    ek_smp_header asked = ek_smp_header_read(request), answered = ek_smp_header_read(response);
    ek_cbor map;
    if (bytes > BUFFER || bytes != EK_SMP_HEADER + (size_t)answered.length || answered.sequence != asked.sequence ||
        answered.group != asked.group || answered.command != asked.command || !(answered.op & 1) ||
        !ek_cbor_open(&map, response + EK_SMP_HEADER, answered.length))
        abort();
    free(request);
    free(response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ek_training training;
    static const ek_training fresh = {.platform = &platform};
    if (size == 0)
        return 0;
    training = fresh;
    ek_training_init(&training);
    set_scene(&training, data[0]);
    ek_smp_group group = {EK_TRAINING_GROUP, ek_training_commands, &training};
    ek_smp_server server = {&group, 1, BUFFER};
    for (size_t at = 1; size - at >= EK_SMP_HEADER;) {
        size_t whole = EK_SMP_HEADER + (size_t)ek_smp_header_read(data + at).length;
        size_t here = whole < size - at ? whole : size - at;
        answer(&server, data + at, here);
        at += here;
    }
    return 0;
}
