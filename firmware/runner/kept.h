/* A training that outlives its link and its host: sessions/<id>/ in the home folder (docs/session-host.md). */
#ifndef EK_KEPT_H
#define EK_KEPT_H

#include "records.h"

typedef enum { EK_IDLE, EK_RUNNING, EK_DONE, EK_STOPPED, EK_FAILED, EK_INTERRUPTED, EK_WAITING } ek_session_state;

/* "idle", "running" … */
const char *ek_state_name(ek_session_state state);

enum { EK_SESSION_ID = 64, EK_HOME_BYTES = EK_PATH_BYTES - 128 /* of the home's path: what lies in it must fit too */ };

typedef struct {
    char text[EK_SESSION_ID + 1];
} ek_session_id;

/* 1 to 64 of A-Z a-z 0-9 . _ -, not beginning with a dot. */
bool ek_session_id_valid(const char *text, size_t length);

bool ek_session_id_equal(const ek_session_id *a, const ek_session_id *b);

/* What a start is answered. */
typedef struct {
    uint32_t id, samples, dropped;
    uint64_t steps, next;
} ek_started;

/* A training's folder while it runs, and afterwards its name. */
typedef struct {
    const ek_platform *platform;
    ek_session_id id;    /* "": this training is not kept, and the functions below do nothing */
    ek_appended records; /* open while it runs */
    uint64_t before;     /* steps done before its first record */
    uint64_t count;      /* records in the file */
    ek_started started;  /* what its start, or resume, was answered */
    bool streams;        /* its data comes as shards, into a folder of its own within this one */
} ek_kept;

/* A file of a session's folder, or the folder ("" as `file`). */
void ek_kept_path(const ek_platform *platform, const ek_session_id *id, const char *file, ek_path *to);

extern const char ek_kept_checkpoint[], ek_kept_spool[], ek_kept_cache[]; /* names in the folder */

/* Make the folder; `map` is the start's request. When this returns, the session is on the disk. On failure nothing stays. */
ek_status ek_kept_create(ek_kept *kept, const void *map, size_t bytes, ek_error *error);

/* Go on with the first kept->count records of a folder. On failure nothing is open. */
ek_status ek_kept_reopen(ek_kept *kept, ek_error *error);

/* Add a record, unless the step has one already. */
ek_status ek_kept_add(ek_kept *kept, const ek_record *record, ek_error *error);

/* Records so far are on the disk. */
ek_status ek_kept_sync(ek_kept *kept, ek_error *error);

/* How a session ended. */
typedef struct {
    ek_session_state state;
    uint64_t step, steps;
    ek_error error; /* why it failed */
} ek_kept_result;

/* Close, and write the result down. */
ek_status ek_kept_end(ek_kept *kept, const ek_kept_result *result, ek_error *error);

/* ---- sessions of which only the folder is there ---- */

/* `request`: what was asked, and what it was answered. */
typedef struct {
    ek_file file;
    uint64_t number; /* grows from session to session */
    uint64_t before;
    ek_started started;
    const uint8_t *map;
    size_t map_bytes;
} ek_kept_request;

/* Unmap request->file when done. NO_SESSION where there is none; on failure it is unmapped. */
ek_status ek_kept_open(const ek_platform *platform, const ek_session_id *id, ek_kept_request *request, ek_error *error);

/* False where the session's host ended without a word. */
bool ek_kept_read_result(const ek_platform *platform, const ek_session_id *id, ek_kept_result *result);

/* Bytes of the folder, and how many whole records are in it. */
void ek_kept_measure(const ek_platform *platform, const ek_session_id *id, uint64_t *bytes, uint64_t *records);

/* Up to `most` records from the one numbered `first` on; IO where one is damaged. */
ek_status ek_kept_read(const ek_platform *platform, const ek_session_id *id, uint64_t first, ek_record *to, size_t most,
                       size_t *got, ek_error *error);

/* How many records of the file's beginning are whole and of the steps before + 1, before + 2 … */
ek_status ek_kept_count(const ek_platform *platform, const ek_session_id *id, uint64_t before, uint64_t *count, ek_error *error);

/* A host has all of a session that is done: records, program, parameters. */
ek_status ek_kept_set_fetched(const ek_platform *platform, const ek_session_id *id, ek_error *error);
bool ek_kept_fetched(const ek_platform *platform, const ek_session_id *id);

/* Somebody reads a session that was fetched already: it counts as used. */
void ek_kept_touch(const ek_platform *platform, const ek_session_id *id);

/* Remove the folder, or it is not there. */
ek_status ek_kept_remove(const ek_platform *platform, const ek_session_id *id, ek_error *error);

/* One session of a list. */
typedef struct {
    uint64_t number;
    ek_session_id id;
} ek_kept_name;

/* All sessions, in the order of their starts. Release *names when done (NULL where there are none). */
ek_status ek_kept_list(const ek_platform *platform, ek_kept_name **names, size_t *count, ek_error *error);

#endif
