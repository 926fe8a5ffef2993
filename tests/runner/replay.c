/* Answers golden requests (hex lines on stdin) as the C server does, in one of a few scenes that the vectors name.
 * usage: replay SCENE [HOME] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../firmware/posix/files.h"
#include "../../firmware/runner/training.h"

enum { MESSAGE_BYTES = 2048, RECORDS_MADE = 5000 };

static ek_platform platform = {
    .board = {.version = "0.1.0", .architecture = "x86_64", .backend = "cpu", .isa = "avx2", .threads = 2, .cores = 4,
              .pid = 4711, .memory_bytes = 8ull << 30},
    .executable = "/opt/edgekit-runner",
    .instance = 99,
    .allocate = malloc,
    .read_at = ek_file_read_at,
    .list = ek_folder_list,
    .remove = ek_path_remove,
    .create = ek_file_create,
    .write = ek_file_write,
    .commit = ek_file_commit,
    .abandon = ek_file_abandon,
    .unused = ek_path_unused,
    .touch = ek_path_touch,
    .link_target = ek_link_target,
    .rename = ek_path_rename,
    .map = ek_file_map,
    .unmap = ek_file_unmap,
    .forget = ek_file_forget,
    .release = free,
};

/* make_golden.py, record() */
static ek_record record_of(uint64_t cursor) {
    uint64_t n = cursor + 1;
    ek_record r = {.step = n, .epoch = (uint32_t)(cursor / 10), .loss = (float)(1.0 / (double)n), .step_ns = n * 1000000,
                   .load_ns = n * 1000, .compute_ns = n * 900000, .update_ns = n * 99000, .time_ns = n * 1000000000000};
    if (n % 3) {
        r.readings = (ek_readings){.known = {true, true, true, true},
                                   .value = {45000 - (int64_t)n, 1800000, 0x50000, 2500000}};
    }
    r.readings.rss_known = n % 2;
    r.readings.rss_bytes = n * 4096;
    return r;
}

static void set_scene(ek_training *t, const char *scene) {
    ek_session *s = &t->session;
    if (strcmp(scene, "running") == 0) {
        s->state = EK_RUNNING;
        s->id = 3;
        s->step = 17;
        s->steps = 100;
        for (uint64_t i = 0; i < RECORDS_MADE; i++) {
            ek_record r = record_of(i);
            ek_records_add(&t->records, &r);
        }
    } else if (strcmp(scene, "streaming") == 0 || strcmp(scene, "waiting") == 0) {
        static const uint8_t shard[64];
        ek_stream stream = {.samples = 803, .steps = 4, .ahead = 3, .folder = {"/home/sessions/gnu/spool"}};
        for (int i = 0; i < EK_DIGEST; i++)
            stream.digest[i] = (uint8_t)i;
        s->state = EK_RUNNING;
        s->id = 3;
        s->step = 17;
        s->steps = 100;
        s->shuffle = true;
        s->position.seed = 42;
        ek_spool_begin(&s->spool, &platform, &stream, true, s->step, 8, 800);
        if (strcmp(scene, "streaming") == 0)
            s->spool.shards[4] = s->spool.shards[5] = (ek_file){shard, sizeof shard};
    } else if (strcmp(scene, "failed") == 0) {
        s->state = EK_FAILED;
        s->id = 9;
        s->step = 5;
        s->steps = 10;
        t->records.next = 5;
        ek_fail(&s->error, EK_DIVERGED, "the loss became NaN at step 5");
    } else if (strcmp(scene, "done") == 0) {
        static ek_op_time times[] = {{7, 5}, {7, 1000000}, {0, 0}};
        s->state = EK_DONE;
        s->id = 4;
        s->step = s->steps = 7;
        s->metrics = (ek_metrics){.known = true, .has_loss = true, .loss_sum = 3, .weight = 10, .correct = 51, .counted = 55,
                                  .samples = 56};
        s->times = times;
        s->profiled = 3;
    } else if (strcmp(scene, "idle") != 0 && strcmp(scene, "home") != 0) {
        fprintf(stderr, "unknown scene %s\n", scene);
        exit(2);
    }
}

int main(int argc, char **argv) {
    static ek_training training = {.platform = &platform};
    static char line[2 * 65536];
    platform.home = argc > 2 ? argv[2] : NULL;
    ek_training_init(&training);
    set_scene(&training, argc > 1 ? argv[1] : "");
    ek_smp_group group = {EK_TRAINING_GROUP, ek_training_commands, &training};
    ek_smp_server server = {&group, 1, MESSAGE_BYTES, ek_training_end, &training};
    while (fgets(line, sizeof line, stdin)) {
        size_t size = strspn(line, "0123456789abcdef") / 2;
        uint8_t *request = malloc(size), response[MESSAGE_BYTES]; /* exactly as long, so that a sanitizer sees a read past it */
        for (size_t i = 0; i < size; i++)
            sscanf(line + 2 * i, "%2hhx", &request[i]);
        size_t answer = ek_smp_handle(&server, request, size, response);
        for (size_t i = 0; i < answer; i++)
            printf("%02x", response[i]);
        putchar('\n');
        free(request);
    }
    return 0;
}
