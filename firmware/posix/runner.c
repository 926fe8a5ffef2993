#include "runner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "board.h"
#include "files.h"
#include "link.h"
#include "pool_posix.h"
#include "signals.h"

static bool usable(const ek_backend *backend) { return !backend->usable || backend->usable(); }

static void list_backends(FILE *to) {
    for (int i = 0; ek_backends[i]; i++)
        fprintf(to, " %s%s", ek_backends[i]->name, usable(ek_backends[i]) ? "" : " (not on this processor)");
    fputc('\n', to);
}

const ek_backend *ek_backend_choose(const char *isa) {
    for (int i = 0; ek_backends[i]; i++)
        if ((!isa || strcmp(isa, ek_backends[i]->name) == 0) && usable(ek_backends[i]))
            return ek_backends[i];
    fprintf(stderr, "edgekit-runner: no instruction set %s; there are:", isa ? isa : "of this build fits the processor");
    list_backends(stderr);
    return NULL;
}

void ek_runner_print_version(void) {
    ek_board board = ek_board_describe();
    printf("edgekit-runner %s %s\ninstruction sets:", board.version, board.architecture);
    list_backends(stdout);
}

enum { HUGE_PAGE = 2 << 20, LARGE = 8 << 20 };

/* Where the kernel offers huge pages on request, a large block asks: kernels that walk the arena then miss the TLB less.
 * A small one does not: up to a huge page at each end of what it touches would be memory that nothing uses. */
static void *allocate(size_t bytes) {
    void *memory;
    int large = bytes >= LARGE;
    if (posix_memalign(&memory, large ? HUGE_PAGE : 64, bytes ? bytes : 1)) return NULL;
#ifdef MADV_HUGEPAGE
    if (large) (void)madvise(memory, bytes, MADV_HUGEPAGE); /* refused: ordinary pages do */
#endif
    return memory;
}

ek_platform ek_posix_platform(void) {
    return (ek_platform){
        .board = ek_board_describe(),
        .instance = ek_board_instance(),
        .clock = ek_board_clock,
        .allocate = allocate,
        .release = free,
        .map = ek_file_map,
        .unmap = ek_file_unmap,
        .forget = ek_file_forget,
        .create = ek_file_create,
        .write = ek_file_write,
        .commit = ek_file_commit,
        .abandon = ek_file_abandon,
        .open_append = ek_file_open_append,
        .append = ek_file_append,
        .sync = ek_file_sync,
        .close = ek_file_close,
        .read_at = ek_file_read_at,
        .make_folder = ek_folder_make,
        .list = ek_folder_list,
        .remove = ek_path_remove,
        .disk_free = ek_disk_free,
        .unused = ek_path_unused,
        .touch = ek_path_touch,
        .link_target = ek_link_target,
        .rename = ek_path_rename,
        .read_sensors = ek_board_read_sensors,
    };
}

ek_pool *ek_pool_open(const ek_options *options) {
    int threads = options->threads ? options->threads : ek_board_usable_cores();
    return ek_pool_create(threads < EK_MAX_THREADS ? threads : EK_MAX_THREADS);
}

int ek_runner_open(ek_runner *r, const ek_options *options, const ek_path *home, ek_poll *poll, void *context) {
    const ek_backend *backend = ek_backend_choose(options->isa);
    if (!backend)
        return EK_EXIT_USAGE;
    r->pool = ek_pool_open(options);
    if (!r->pool) {
        fprintf(stderr, "edgekit-runner: cannot start: %s\n", strerror(errno));
        return EK_EXIT_FAILED;
    }
    r->platform = ek_posix_platform();
    r->platform.board.isa = backend->name;
    r->platform.board.threads = (uint32_t)ek_pool_threads(r->pool);
    if (ek_board_executable(&r->executable))
        r->platform.executable = r->executable.text;
    if (home) {
        r->home = *home;
        r->platform.home = r->home.text;
    }
    r->training.platform = &r->platform;
    r->training.backend = backend;
    r->training.pool = r->pool;
    r->training.poll = poll;
    r->training.poll_context = context;
    ek_training_init(&r->training);
    r->group = (ek_smp_group){EK_TRAINING_GROUP, ek_training_commands, &r->training};
    r->server = (ek_smp_server){&r->group, 1, EK_LINK_BUFFER, ek_training_end, &r->training};
    return 0;
}

bool ek_runner_ends(const ek_runner *r) { return ek_asked_to_end() || r->training.ending; }

void ek_runner_stop(ek_runner *r) {
    if (!ek_training_runs(&r->training))
        return;
    r->training.session.stop_requested = true;
    ek_session_step(&r->training.session);
}

void ek_runner_close(ek_runner *r) {
    ek_training_close(&r->training);
    ek_pool_destroy(r->pool);
}
