/* What the runner needs of the system below it: files, memory, clock, sensors, as one table. firmware/posix has the first one. */
#ifndef EK_PLATFORM_H
#define EK_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/status.h"

#ifndef EK_PATH_BYTES
#define EK_PATH_BYTES 1024 /* of a path, its end included */
#endif

typedef struct {
    char text[EK_PATH_BYTES];
} ek_path;

/* A whole file, readable at `bytes` (64-byte aligned) until it is unmapped. */
typedef struct {
    const uint8_t *bytes;
    size_t size;
} ek_file;

/* A file that comes to be as a whole, under its name, or not at all. */
typedef struct {
    ek_path path;
    int handle;    /* the platform's; negative: nothing is open */
    uint64_t have; /* bytes of it that are there */
} ek_new_file;

/* A file that grows: `bytes` of it are there, always whole pieces. */
typedef struct {
    ek_path path;
    int handle; /* as above */
    uint64_t bytes;
} ek_appended;

/* Called for each name of a folder, but . and ..; `bytes` of a file, 0 of anything else. */
typedef void ek_visit(void *context, const char *name, uint64_t bytes);

enum { EK_TEMPERATURE, EK_CLOCK, EK_THROTTLED, EK_POWER, EK_SENSORS }; /* m°C, kHz, flag word, µW */

typedef struct {
    bool known[EK_SENSORS], rss_known;
    int64_t value[EK_SENSORS];
    uint64_t rss_bytes; /* high-water */
} ek_readings;

typedef struct {
    const char *version, *architecture, *backend, *isa;
    const char *port;             /* a microcontroller's folder of the firmware, "mps2-an500"; else NULL */
    const char *reset;            /* why it started last; NULL: unknown */
    uint32_t (*stack_peak)(void); /* bytes of the stack that were ever in use; NULL: unknown */
    uint32_t threads, cores, pid;
    uint64_t memory_bytes;
} ek_board;

typedef struct {
    ek_board board;
    const char *home;        /* absolute path of the folder that keeps sessions, or NULL */
    const char *executable;  /* path of this program */
    uint64_t instance;       /* another number at each start */
    uint64_t (*clock)(void); /* monotonic ns */
    void *(*allocate)(size_t bytes); /* 64-byte aligned, or NULL; called by load, start and sessions only */
    size_t memory_limit;             /* of all that is allocated; 0: unknown. Where it is known, a program takes the loaded one's place */
    void (*release)(void *memory);
    ek_status (*map)(const char *path, ek_file *file, ek_error *error);
    bool (*in_memory)(const ek_file *file); /* whether a mapped file takes part of `memory_limit`; NULL: each does */
    void (*unmap)(ek_file *file); /* bytes is NULL then; harmless when nothing is mapped */
    void (*forget)(const void *bytes, size_t size); /* part of a mapped file that is not read soon: may leave memory until then */
    ek_status (*create)(ek_new_file *file, const char *path, uint64_t size, ek_error *error); /* `size` bytes will be written */
    /* The same for bytes of that SHA-256, which commit compares. Some of them may be there from before a restart, and a write may find
     * that fewer are than was thought: `have` is from where to go on. NULL: nothing of a file outlives a restart, so create it. */
    ek_status (*receive)(ek_new_file *file, const char *path, uint64_t size, const uint8_t digest[32], ek_error *error);
    ek_status (*write)(ek_new_file *file, const void *bytes, size_t size, ek_error *error);
    ek_status (*commit)(ek_new_file *file, ek_error *error); /* on failure the file is abandoned */
    void (*abandon)(ek_new_file *file);                      /* nothing of it remains; harmless when nothing is open */

    /* What keeps sessions and shards. Where neither is asked for these may be NULL. */
    ek_status (*open_append)(ek_appended *file, const char *path, uint64_t keep, ek_error *error); /* cut to `keep` bytes, or made */
    ek_status (*append)(ek_appended *file, const void *bytes, size_t size, ek_error *error);       /* whole or not at all */
    ek_status (*sync)(ek_appended *file, ek_error *error);
    void (*close)(ek_appended *file); /* harmless when nothing is open */
    ek_status (*read_at)(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error); /* fewer at the end */
    ek_status (*make_folder)(const char *path, ek_error *error);                                   /* or it is there */
    ek_status (*list)(const char *path, ek_visit *visit, void *context, ek_error *error);
    ek_status (*remove)(const char *path, ek_error *error); /* a file, or a folder with the files in it; or it is not there */
    bool (*disk_free)(const char *path, uint64_t *bytes);
    bool (*unused)(const char *path, uint64_t *seconds); /* since it, or what lies in it, was made, changed or touched; false: gone */
    void (*touch)(const char *path);                     /* it is in use; harmless where it is not there */
    bool (*link_target)(const char *path, ek_path *target); /* false: no symbolic link */
    ek_status (*rename)(const char *from, const char *to, ek_error *error);

    void (*read_sensors)(const ek_path *paths, ek_readings *readings); /* paths[EK_SENSORS]; "" for none */
} ek_platform;

#endif
