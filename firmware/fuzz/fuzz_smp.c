/* A fuzz target (LLVM's interface): whatever messages come, in a row, each gets one answer of at most a buffer, and nothing is
 * read outside them. Nothing is loaded, and the only files are those of two sessions, "a" and "b", one of them torn, so that an
 * input takes microseconds.
 *
 * The input is a row of messages as a link would deliver them: the header's length delimits them, the last may be cut. */
#include <stdlib.h>
#include <string.h>

#include "../runner/crc32.h"
#include "../runner/training.h"

enum { BUFFER = 4096, RECORDS = 40 * 128 + 5 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t stopped_clock(void) { return 0; }

/* A session's request: the head of docs/session-host.md before a start's map. */
typedef struct {
    uint8_t magic[8];
    uint64_t number, before, steps;
    uint32_t id, samples, dropped, map_bytes;
    uint8_t zero[12];
    uint32_t crc;
    uint8_t map[96];
} request_file;

static const uint8_t start_map[] = "\xA7\x64kind\x65train\x64" "data\x62/d\x66" "epochs\x05\x67shuffle\xF5\x64seed\x07"
                                   "\x67session\x61" "a\x67program\x62/p";
static const uint8_t result[] = "\xA5\x65state\x66" "failed\x64step\x02\x65steps\x05\x62rc\x18\x28\x63why\x63" "bad";

static const uint8_t *request_bytes(void)
{
    static _Alignas(64) request_file file = {.magic = "EKSESS1\n", .number = 7, .steps = 5, .samples = 9,
                                             .map_bytes = sizeof start_map - 1};
    memcpy(file.map, start_map, sizeof start_map - 1);
    file.crc = ek_crc32_more(ek_crc32(&file, 60), file.map, file.map_bytes);
    return (const uint8_t *)&file;
}

/* 40 records of steps 1, 2 …, the last one damaged, and a torn one behind it. */
static const uint8_t *record_bytes(void)
{
    static _Alignas(64) uint8_t bytes[RECORDS];
    for (uint64_t i = 0; i < 40; i++) {
        uint8_t *at = bytes + 128 * i;
        uint64_t step = i + 1;
        memcpy(at, &step, sizeof step);
        uint32_t crc = ek_crc32(at, 124) ^ (i == 39);
        memcpy(at + 124, &crc, sizeof crc);
    }
    return bytes;
}

static bool ends_with(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

static ek_file find(const char *path)
{
    if (ends_with(path, "/sessions/a/request"))
        return (ek_file){request_bytes(), offsetof(request_file, map) + sizeof start_map - 1};
    if (ends_with(path, "/sessions/b/request"))
        return (ek_file){request_bytes(), 64}; /* cut */
    if (ends_with(path, "/sessions/a/records"))
        return (ek_file){record_bytes(), RECORDS};
    if (ends_with(path, "/spool/2"))
        return (ek_file){record_bytes(), 400}; /* no shard */
    if (ends_with(path, "/sessions/a/result"))
        return (ek_file){result, sizeof result - 1};
    return (ek_file){NULL, 0};
}

static ek_status map_file(const char *path, ek_file *file, ek_error *error)
{
    *file = find(path);
    return file->bytes ? EK_OK : ek_fail(error, EK_NOT_FOUND, "cannot open %.160s", path);
}

static void unmap_file(ek_file *file) { *file = (ek_file){NULL, 0}; }

static ek_status read_file(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error)
{
    ek_file file = find(path);
    *got = 0;
    if (!file.bytes)
        return ek_fail(error, EK_NOT_FOUND, "cannot open %.160s", path);
    if (at < file.size)
        *got = file.size - at < room ? file.size - at : room;
    if (*got)
        memcpy(to, file.bytes + at, *got);
    return EK_OK;
}

static ek_status list_folder(const char *path, ek_visit *visit, void *context, ek_error *error)
{
    (void)error;
    if (ends_with(path, "/sessions/a"))
        visit(context, "records", RECORDS);
    if (ends_with(path, "/store"))
        visit(context, "z.data", 0);
    if (ends_with(path, ".data"))
        visit(context, "y", 0);
    if (ends_with(path, "/sessions"))
        for (const char *const *name = (const char *const[]){"b", "a", ".x", "c", NULL}; *name; name++)
            visit(context, *name, 0);
    return EK_OK;
}

static ek_status refuse(const char *path, ek_error *error)
{
    return ek_fail(error, EK_PERMISSION, "cannot change %.160s", path);
}

static ek_status no_new_file(ek_new_file *file, const char *path, uint64_t size, ek_error *error)
{
    (void)size;
    file->handle = -1;
    return refuse(path, error);
}

static ek_status no_appended(ek_appended *file, const char *path, uint64_t keep, ek_error *error)
{
    (void)keep;
    file->handle = -1;
    return refuse(path, error);
}

static bool unused(const char *path, uint64_t *seconds)
{
    *seconds = 1000;
    return path != NULL;
}

static void touch(const char *path) { (void)path; }

static bool link_target(const char *path, ek_path *target)
{
    strcpy(target->text, "../x");
    return ends_with(path, "y");
}

static ek_status no_rename(const char *from, const char *to, ek_error *error)
{
    (void)to;
    return refuse(from, error);
}

static bool disk_free(const char *path, uint64_t *bytes)
{
    *bytes = 1u << 30;
    return path != NULL;
}

static const ek_platform platform = {
    .board = {.version = "0", .architecture = "any", .backend = "cpu", .isa = "plain", .threads = 1, .cores = 1},
    .home = "/home",
    .clock = stopped_clock,
    .allocate = malloc,
    .release = free,
    .map = map_file,
    .unmap = unmap_file,
    .create = no_new_file,
    .open_append = no_appended,
    .read_at = read_file,
    .make_folder = refuse,
    .list = list_folder,
    .remove = refuse,
    .disk_free = disk_free,
    .unused = unused,
    .touch = touch,
    .link_target = link_target,
    .rename = no_rename,
};

/* Records, times and a state to tell of. `running` and `failed` sessions answer differently. */
static void set_scene(ek_training *training, uint8_t choice)
{
    static ek_op_time times[300];
    ek_session *session = &training->session;
    session->state = choice % 5;
    if (choice & 16)
        strcpy(session->kept.id.text, "a");
    session->kept.count = choice & 32 ? 39 : 0;
    training->records.next = (uint64_t)choice * 64;
    if (choice & 1)
        session->metrics = (ek_metrics){.known = true, .has_loss = choice & 2, .loss_sum = 1, .weight = choice & 4};
    if (choice & 8) {
        session->times = times;
        session->profiled = sizeof times / sizeof times[0];
    }
    if (choice & 64) {
        const ek_stream stream = {.samples = 80, .steps = 1, .ahead = 3, .folder = {"/home/sessions/a/spool"}};
        session->steps = 9;
        ek_spool_begin(&session->spool, &platform, &stream, true, 2, 4, 36);
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
    ek_smp_server server = {&group, 1, BUFFER, ek_training_end, &training};
    for (size_t at = 1; size - at >= EK_SMP_HEADER;) {
        size_t whole = EK_SMP_HEADER + (size_t)ek_smp_header_read(data + at).length;
        size_t here = whole < size - at ? whole : size - at;
        answer(&server, data + at, here);
        at += here;
    }
    return 0;
}
