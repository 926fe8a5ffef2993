#ifdef __linux__
#define _GNU_SOURCE
#include <sched.h>
#endif

#include "board.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#include <sys/random.h>
#endif

#ifndef EK_VERSION
#define EK_VERSION "0.0.0"
#endif

#if defined(__x86_64__)
#define ARCHITECTURE "x86_64"
#elif defined(__aarch64__)
#define ARCHITECTURE "aarch64"
#else
#error "the runner knows x86-64 and aarch64"
#endif

ek_board ek_board_describe(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return (ek_board){
        .version = EK_VERSION,
        .architecture = ARCHITECTURE,
        .backend = "cpu",
        .cores = cores > 0 ? (uint32_t)cores : 1,
        .pid = (uint32_t)getpid(),
        .memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0,
    };
}

int ek_board_usable_cores(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
#endif
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (int)cores : 1;
}

uint64_t ek_board_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t ek_board_instance(void) {
    uint64_t number;
    struct timespec now;
    if (getentropy(&number, sizeof number) == 0)
        return number;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) ^ (uint64_t)getpid() << 40;
}

bool ek_board_executable(ek_path *path) {
#ifdef __APPLE__
    uint32_t room = sizeof path->text;
    return _NSGetExecutablePath(path->text, &room) == 0;
#else
    ssize_t n = readlink("/proc/self/exe", path->text, sizeof path->text - 1);
    if (n <= 0)
        return false;
    path->text[n] = 0;
    return true;
#endif
}

/* The beginning of a small file as text; false where it cannot be read. Opened anew each time: sysfs nodes come and go. */
static bool read_text(const char *path, char *to, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, to, room - 1);
    close(fd);
    if (n <= 0)
        return false;
    to[n] = 0;
    return true;
}

/* A file of one integer. */
static bool read_integer(const char *path, int base, int64_t *value) {
    char text[64], *end;
    if (!path[0] || !read_text(path, text, sizeof text))
        return false;
    errno = 0;
    *value = strtoll(text, &end, base);
    if (errno || end == text)
        return false;
    while (isspace((unsigned char)*end))
        end++;
    return *end == 0;
}

/* The most memory that the process has had: VmHWM, which, unlike ru_maxrss, starts anew at exec. */
static bool read_rss(uint64_t *bytes) {
    char text[4096];
    if (!read_text("/proc/self/status", text, sizeof text))
        return false;
    const char *at = strstr(text, "VmHWM:");
    if (!at)
        return false;
    *bytes = strtoull(at + strlen("VmHWM:"), NULL, 10) * 1024;
    return true;
}

void ek_board_read_sensors(const ek_path *paths, ek_readings *readings) {
    for (int i = 0; i < EK_SENSORS; i++)
        readings->known[i] = read_integer(paths[i].text, i == EK_THROTTLED ? 16 : 10, &readings->value[i]);
    readings->rss_known = read_rss(&readings->rss_bytes);
}
