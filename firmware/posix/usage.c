/* `usage`: what takes how much of the home folder, and what needs what, as lines for the host (docs/session-host.md). */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../runner/discard.h"
#include "files.h"
#include "home.h"
#include "runner.h"
#include "words.h"

enum { DEEPEST = 16, BLOCK = 512 /* the unit of st_blocks */ };

typedef struct {
    uint64_t bytes, seconds; /* on the disk; since the youngest of it was used */
} amount;

typedef void visit_entry(void *context, const char *path, int depth);

static void visit_all(const char *folder, visit_entry *visit, void *context, int depth) {
    char path[EK_PATH_BYTES];
    DIR *open = opendir(folder);
    if (!open)
        return;
    for (struct dirent *entry; (entry = readdir(open));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !strchr(entry->d_name, '\n') &&
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path)
            visit(context, path, depth);
    closedir(open);
}

static void add(void *context, const char *path, int depth) {
    amount *sum = context;
    struct stat info;
    if (lstat(path, &info) != 0)
        return; /* gone meanwhile */
    uint64_t seconds = ek_seconds_since(&info);
    sum->bytes += (uint64_t)info.st_blocks * BLOCK;
    if (seconds < sum->seconds)
        sum->seconds = seconds;
    if (S_ISDIR(info.st_mode) && depth < DEEPEST)
        visit_all(path, add, sum, depth + 1);
}

static void print_link(void *context, const char *path, int depth) {
    ek_path target;
    (void)depth;
    if (ek_link_target(path, &target) && !strchr(target.text, '\n'))
        printf("link %s %s\n", (const char *)context, target.text);
}

/* Paths are relative to the home, which is the working folder; "./" comes first. */
static void print_entry(void *context, const char *path, int depth) {
    const char *name = path + 2;
    amount sum = {0, UINT64_MAX};
    struct stat info;
    if (lstat(path, &info) != 0)
        return;
    if (S_ISDIR(info.st_mode) && depth == 0) {
        visit_all(path, print_entry, context, 1);
        return;
    }
    add(&sum, path, 0);
    if (depth == 0)
        print_link((void *)name, path, 0); /* current, previous */
    printf("entry %" PRIu64 " %" PRIu64 " %s\n", sum.bytes, sum.seconds, name);
    if (strncmp(name, "store/", 6) == 0 && S_ISDIR(info.st_mode))
        visit_all(path, print_link, (void *)name, 0);
}

static void print_need(void *context, const char *path) {
    if (!strchr(path, '\n'))
        printf("need %s %s\n", (const char *)context, path);
}

int ek_usage(const ek_options *options) {
    ek_platform platform = ek_posix_platform();
    ek_path home;
    ek_error error;
    ek_kept_name *names = NULL;
    size_t count = 0;
    uint64_t free_bytes;
    platform.home = home.text;
    if (ek_home_enter(options->home, &home, &error) != EK_OK || ek_kept_list(&platform, &names, &count, &error) != EK_OK) {
        fprintf(stderr, "edgekit-runner: %s\n", error.text);
        return EK_EXIT_FAILED;
    }
    if (ek_disk_free(".", &free_bytes))
        printf("free %" PRIu64 "\n", free_bytes);
    visit_all(".", print_entry, NULL, 0);
    for (size_t i = 0; i < count; i++)
        ek_session_needs(&platform, &names[i].id, print_need, names[i].id.text);
    platform.release(names);
    return fflush(stdout) == 0 ? 0 : EK_EXIT_FAILED;
}
