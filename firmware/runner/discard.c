#include "discard.h"

#include <stdio.h>
#include <string.h>

#include "fields.h"
#include "sessions.h"
#include "start.h"

static const char store[] = "store/", sessions[] = "sessions/", releases[] = "releases/", data[] = ".data", gone[] = ".gone";

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static bool ends(const char *text, const char *with) {
    size_t length = strlen(text), tail = strlen(with);
    return length >= tail && strcmp(text + length - tail, with) == 0;
}

static void home_path(const ek_platform *platform, const char *name, ek_path *to) {
    snprintf(to->text, sizeof to->text, "%s/%s", platform->home, name);
}

/* What lies in one of the folders whose content may go. */
static ek_status check_name(const ek_platform *platform, const char *name, ek_error *error) {
    const char *slash = strchr(name, '/');
    if ((begins(name, store) || begins(name, sessions) || begins(name, releases) || begins(name, "work/")) &&
        slash[1] && !strchr(slash + 1, '/') &&
        strcmp(slash, "/.") != 0 && strcmp(slash, "/..") != 0 &&
        strlen(platform->home) + 1 + strlen(name) + sizeof gone <= EK_PATH_BYTES)
        return EK_OK;
    return ek_fail(error, EK_BAD_REQUEST, "\"path\" is %.120s, not store/, work/, sessions/ or releases/ and one name", name);
}

/* ---- what sessions need ---- */

void ek_session_needs(const ek_platform *platform, const ek_session_id *id, ek_need *need, void *context) {
    ek_session_request r;
    ek_kept_request kept;
    ek_kept_result result;
    ek_cbor map;
    ek_error unused;
    if (ek_kept_open(platform, id, &kept, &unused) != EK_OK)
        return;
    bool whole = ek_cbor_open(&map, kept.map, kept.map_bytes) && ek_start_read(&map, &r, &unused) == EK_OK;
    platform->unmap(&kept.file);
    if (!whole)
        return;
    need(context, r.program.text);
    if (ek_kept_read_result(platform, id, &result) && result.state == EK_DONE)
        return;
    const ek_path *rest[] = {&r.data, &r.resume, &r.state};
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        if (rest[i]->text[0])
            need(context, rest[i]->text);
}

typedef struct {
    const char *name;
    bool needed;
} question;

/* By the tail of the path: a host may reach the home by another way, through a symbolic link. */
static void compare(void *context, const char *path) {
    question *q = context;
    size_t length = strlen(q->name);
    for (const char *at = path; (at = strchr(at, '/')); at++)
        q->needed |= strncmp(at + 1, q->name, length) == 0 && (at[1 + length] == 0 || at[1 + length] == '/');
}

static ek_status is_needed(const ek_platform *platform, const char *name, bool *needed, ek_error *error) {
    question q = {name, false};
    ek_kept_name *names;
    size_t count;
    if (ek_kept_list(platform, &names, &count, error) != EK_OK)
        return error->status;
    for (size_t i = 0; i < count; i++)
        if (!begins(name, sessions) || strcmp(name + strlen(sessions), names[i].id.text) != 0)
            ek_session_needs(platform, &names[i].id, compare, &q);
    platform->release(names);
    *needed = q.needed;
    return EK_OK;
}

/* ---- what data sets need: they link to files of the store ---- */

typedef struct {
    const ek_platform *platform;
    const char *name, *folder;
    bool linked;
} search;

static void compare_link(void *context, const char *name, uint64_t bytes) {
    search *s = context;
    ek_path target;
    char path[2 * EK_PATH_BYTES];
    (void)bytes;
    snprintf(path, sizeof path, "%s/%s", s->folder, name);
    s->linked |= s->platform->link_target(path, &target) && begins(target.text, "../") && strcmp(target.text + 3, s->name) == 0;
}

static void search_folder(void *context, const char *name, uint64_t bytes) {
    search *s = context;
    char relative[EK_PATH_BYTES];
    ek_path folder;
    ek_error unused;
    (void)bytes;
    if (!strstr(name, data) || ends(name, gone))
        return;
    snprintf(relative, sizeof relative, "%s%s", store, name);
    home_path(s->platform, relative, &folder);
    s->folder = folder.text;
    (void)s->platform->list(folder.text, compare_link, s, &unused);
}

typedef struct {
    const ek_platform *platform;
    const char *folder;
    uint64_t seconds; /* since the youngest was written */
} uploads;

static void look_for_upload(void *context, const char *name, uint64_t bytes) {
    uploads *u = context;
    char path[2 * EK_PATH_BYTES];
    uint64_t seconds;
    (void)bytes;
    snprintf(path, sizeof path, "%s/%s", u->folder, name); /* a link: what it leads to is there, or under way */
    ek_path target;
    if (!u->platform->link_target(path, &target))
        return;
    snprintf(path, sizeof path, "%s/%.128s.part", u->folder, target.text);
    if (u->platform->unused(path, &seconds) && seconds < u->seconds)
        u->seconds = seconds;
}

/* Seconds for which nobody has used what lies there, or sent a file of a data set. */
static bool last_used(const ek_platform *platform, const char *name, const char *path, uint64_t *seconds) {
    ek_error unused;
    if (!platform->unused(path, seconds))
        return false;
    uploads u = {platform, path, *seconds};
    if (begins(name, store) && strstr(name, data))
        (void)platform->list(path, look_for_upload, &u, &unused);
    *seconds = u.seconds;
    return true;
}

/* Whether a release is the current or the previous one. */
static bool is_in_use(const ek_platform *platform, const char *name) {
    static const char *const links[] = {"current", "previous"};
    ek_path link, target;
    bool same = false;
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        home_path(platform, links[i], &link);
        same |= platform->link_target(link.text, &target) && strcmp(target.text, name) == 0;
    }
    return same;
}

static bool is_linked(const ek_platform *platform, const char *name) {
    search s = {.platform = platform, .name = name + strlen(store)};
    ek_path all;
    ek_error unused;
    home_path(platform, "store", &all);
    return begins(name, store) && (platform->list(all.text, search_folder, &s, &unused) != EK_OK || s.linked);
}

/* ---- removing ---- */

/* A data set is gone in one step: half of one would be taken for a whole one. */
static ek_status remove_entry(const ek_platform *platform, const char *name, const char *path, ek_error *error) {
    char moved[EK_PATH_BYTES + sizeof gone];
    if (!begins(name, store) || !ends(name, data))
        return platform->remove(path, error);
    snprintf(moved, sizeof moved, "%s%s", path, gone);
    if (platform->remove(moved, error) != EK_OK || platform->rename(path, moved, error) != EK_OK)
        return error->status;
    return platform->remove(moved, error);
}

/* Whether a session is over and at home, or only what a cut left of one. */
static bool is_fetched(const ek_training *t, const ek_session_id *id) {
    ek_kept_request kept;
    ek_kept_result result;
    ek_error error;
    if (ek_kept_open(t->platform, id, &kept, &error) != EK_OK)
        return error.status == EK_NO_SESSION;
    t->platform->unmap(&kept.file);
    return ek_kept_read_result(t->platform, id, &result) && result.state == EK_DONE && ek_kept_fetched(t->platform, id);
}

static ek_status discard_session(ek_training *t, const char *name, bool *removed, ek_error *error) {
    ek_session_id id;
    if (!ek_session_id_valid(name, strlen(name)))
        return ek_fail(error, EK_BAD_REQUEST, "%.120s is no session's name", name);
    snprintf(id.text, sizeof id.text, "%s", name);
    if (!is_fetched(t, &id))
        return EK_OK;
    *removed = true;
    return ek_sessions_forget(t, &id, error);
}

static ek_status discard(ek_training *t, const char *name, uint64_t least, bool *removed, ek_error *error) {
    const ek_platform *platform = t->platform;
    ek_path path;
    uint64_t seconds;
    bool needed;
    home_path(platform, name, &path);
    *removed = !last_used(platform, name, path.text, &seconds); /* asked once more after a cut */
    if (*removed || seconds < least)
        return EK_OK;
    if (is_needed(platform, name, &needed, error) != EK_OK)
        return error->status;
    if (needed || is_linked(platform, name) || is_in_use(platform, name))
        return EK_OK;
    if (begins(name, sessions))
        return discard_session(t, name + strlen(sessions), removed, error);
    *removed = true;
    return remove_entry(platform, name, path.text, error);
}

ek_status ek_discard(void *context, const ek_cbor *request, ek_cbor_writer *to, ek_error *error) {
    ek_training *t = context;
    ek_path name;
    uint64_t least = 0;
    bool removed;
    if (ek_read_path(request, "path", true, &name, error) != EK_OK ||
        ek_read_uint(request, "unused", false, UINT64_MAX, &least, error) != EK_OK || ek_sessions_need_home(t, error) != EK_OK ||
        check_name(t->platform, name.text, error) != EK_OK || discard(t, name.text, least, &removed, error) != EK_OK)
        return error->status;
    ek_cbor_write_map(to, 1);
    ek_cbor_write_text(to, "removed");
    ek_cbor_write_bool(to, removed);
    return EK_OK;
}
