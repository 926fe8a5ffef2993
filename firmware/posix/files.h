/* Files as the runner sees them (runner/platform.h), on POSIX. */
#ifndef EK_FILES_H
#define EK_FILES_H

#include "../runner/platform.h"

ek_status ek_file_map(const char *path, ek_file *file, ek_error *error);
void ek_file_unmap(ek_file *file);
void ek_file_forget(const void *bytes, size_t size);

/* Written to <path>.tmp, fsynced, renamed, the folder fsynced: after a crash either the old file or the new one is there. */
ek_status ek_file_create(ek_new_file *file, const char *path, ek_error *error);
ek_status ek_file_write(ek_new_file *file, const void *bytes, size_t size, ek_error *error);
ek_status ek_file_commit(ek_new_file *file, ek_error *error);
void ek_file_abandon(ek_new_file *file);

#endif
