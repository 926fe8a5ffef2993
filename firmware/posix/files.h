/* Files as the runner sees them (runner/platform.h), on POSIX. */
#ifndef EK_FILES_H
#define EK_FILES_H

#include <sys/stat.h>

#include "../runner/platform.h"

ek_status ek_file_map(const char *path, ek_file *file, ek_error *error);
void ek_file_unmap(ek_file *file);
void ek_file_forget(const void *bytes, size_t size);

/* Written to <path>.tmp, fsynced, renamed, the folder fsynced: after a crash either the old file or the new one is there. */
ek_status ek_file_create(ek_new_file *file, const char *path, uint64_t size, ek_error *error);
ek_status ek_file_write(ek_new_file *file, const void *bytes, size_t size, ek_error *error);
ek_status ek_file_commit(ek_new_file *file, ek_error *error);
void ek_file_abandon(ek_new_file *file);

ek_status ek_file_open_append(ek_appended *file, const char *path, uint64_t keep, ek_error *error);
ek_status ek_file_append(ek_appended *file, const void *bytes, size_t size, ek_error *error);
ek_status ek_file_sync(ek_appended *file, ek_error *error);
void ek_file_close(ek_appended *file);
ek_status ek_file_read_at(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error);

/* Mode 0700, its name on the disk. */
ek_status ek_folder_make(const char *path, ek_error *error);
ek_status ek_folder_list(const char *path, ek_visit *visit, void *context, ek_error *error);
ek_status ek_path_remove(const char *path, ek_error *error);
bool ek_disk_free(const char *path, uint64_t *bytes);

/* By the time of the last change of content, name or mode, which no copying tool sets back, and which hosts can set by chmod without
 * knowing the board's clock. A time in the future counts by its distance too: the clock was set back. */
bool ek_path_unused(const char *path, uint64_t *seconds);
uint64_t ek_seconds_since(const struct stat *info);
void ek_path_touch(const char *path);
bool ek_link_target(const char *path, ek_path *target);
ek_status ek_path_rename(const char *from, const char *to, ek_error *error);

#endif
