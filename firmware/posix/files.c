#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { TEMPORARY_BYTES = EK_PATH_BYTES + 4 };

static ek_status status_of(int number) {
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return EK_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return EK_PERMISSION;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return EK_NO_SPACE;
    case ENOMEM:
        return EK_NO_MEMORY;
    default:
        return EK_IO;
    }
}

/* `number` is errno at the time of the failure. */
static ek_status fail_with(ek_error *error, int number, const char *what, const char *path) {
    return ek_fail(error, status_of(number), "cannot %s %.160s: %s", what, path, strerror(number));
}

ek_status ek_file_map(const char *path, ek_file *file, ek_error *error) {
    *file = (ek_file){NULL, 0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: a FIFO must not hang the runner */
    if (fd < 0)
        return fail_with(error, errno, "open", path);
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return ek_fail(error, EK_IO, "%.160s is no regular file", path);
    }
    static const _Alignas(64) uint8_t nothing[64];
    void *at = (void *)nothing; /* mmap refuses an empty file */
    if (info.st_size > 0)
        at = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int number = errno;
    close(fd);
    if (at == MAP_FAILED)
        return fail_with(error, number, "map", path);
    *file = (ek_file){at, (size_t)info.st_size};
    return EK_OK;
}

void ek_file_unmap(ek_file *file) {
    if (file->size)
        munmap((void *)file->bytes, file->size);
    *file = (ek_file){NULL, 0};
}

/* The whole pages around the bytes: all of them are of the same mapping, and come back from the file when they are read. */
void ek_file_forget(const void *bytes, size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (uintptr_t)bytes % page;
    if (size)
        (void)madvise((uint8_t *)(uintptr_t)bytes - before, size + before, MADV_DONTNEED); /* refused: they stay in memory */
}

static const char *temporary(const ek_new_file *file, char to[TEMPORARY_BYTES]) {
    snprintf(to, TEMPORARY_BYTES, "%s.tmp", file->path.text);
    return to;
}

ek_status ek_file_create(ek_new_file *file, const char *path, uint64_t size, ek_error *error) {
    (void)size;
    char name[TEMPORARY_BYTES];
    file->have = 0;
    snprintf(file->path.text, sizeof file->path.text, "%s", path);
    file->handle = open(temporary(file, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return file->handle < 0 ? fail_with(error, errno, "create", name) : EK_OK;
}

static bool write_all(int fd, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    while (size) {
        ssize_t written = write(fd, at, size < 1 << 30 ? size : 1 << 30);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

ek_status ek_file_write(ek_new_file *file, const void *bytes, size_t size, ek_error *error) {
    if (!write_all(file->handle, bytes, size))
        return fail_with(error, errno, "write", file->path.text);
    file->have += size;
    return EK_OK;
}

/* So that the new name itself is on the disk. */
static int sync_folder(const char *path) {
    char folder[EK_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = fsync(fd);
    if (result != 0 && (errno == EINVAL || errno == ENOTSUP)) /* a file system that has no such thing */
        result = 0;
    int number = errno;
    close(fd);
    errno = number;
    return result;
}

ek_status ek_file_commit(ek_new_file *file, ek_error *error) {
    char name[TEMPORARY_BYTES];
    int fd = file->handle;
    bool synced = fsync(fd) == 0;
    int number = errno;
    file->handle = -1;
    if (close(fd) != 0 && synced) {
        number = errno;
        synced = false;
    }
    if (synced && rename(temporary(file, name), file->path.text) == 0)
        return sync_folder(file->path.text) == 0 ? EK_OK : fail_with(error, errno, "sync the folder of", file->path.text);
    if (synced)
        number = errno;
    unlink(temporary(file, name));
    return fail_with(error, number, "write", file->path.text);
}

void ek_file_abandon(ek_new_file *file) {
    char name[TEMPORARY_BYTES];
    if (file->handle < 0)
        return;
    close(file->handle);
    file->handle = -1;
    unlink(temporary(file, name));
}

/* ---- files that grow ---- */

ek_status ek_file_open_append(ek_appended *file, const char *path, uint64_t keep, ek_error *error) {
    snprintf(file->path.text, sizeof file->path.text, "%s", path);
    file->bytes = keep;
    file->handle = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    if (file->handle < 0)
        return fail_with(error, errno, "open", path);
    struct stat info;
    if (fstat(file->handle, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size >= keep &&
        ftruncate(file->handle, (off_t)keep) == 0)
        return EK_OK;
    int number = errno;
    ek_file_close(file);
    return fail_with(error, number, "cut", path);
}

ek_status ek_file_append(ek_appended *file, const void *bytes, size_t size, ek_error *error) {
    if (write_all(file->handle, bytes, size)) {
        file->bytes += size;
        return EK_OK;
    }
    int number = errno;
    if (ftruncate(file->handle, (off_t)file->bytes) != 0) /* a part of a piece stays: readers count whole ones */
        (void)0;
    return fail_with(error, number, "write", file->path.text);
}

ek_status ek_file_sync(ek_appended *file, ek_error *error) {
#ifdef __linux__
    int result = fdatasync(file->handle);
#else
    int result = fsync(file->handle);
#endif
    return result == 0 ? EK_OK : fail_with(error, errno, "write", file->path.text);
}

void ek_file_close(ek_appended *file) {
    if (file->handle >= 0)
        close(file->handle);
    file->handle = -1;
}

ek_status ek_file_read_at(const char *path, uint64_t at, void *to, size_t room, size_t *got, ek_error *error) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *got = 0;
    if (fd < 0)
        return fail_with(error, errno, "open", path);
    ssize_t n = 1;
    while (n > 0 && *got < room) {
        n = pread(fd, (uint8_t *)to + *got, room - *got, (off_t)(at + *got));
        if (n > 0)
            *got += (size_t)n;
    }
    int number = errno;
    close(fd);
    return n < 0 ? fail_with(error, number, "read", path) : EK_OK;
}

/* ---- folders ---- */

ek_status ek_folder_make(const char *path, ek_error *error) {
    struct stat info;
    if (mkdir(path, 0700) == 0)
        return sync_folder(path) == 0 ? EK_OK : fail_with(error, errno, "sync the folder of", path);
    int number = errno;
    if (number == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return EK_OK;
    return fail_with(error, number, "make the folder", path);
}

static bool is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

ek_status ek_folder_list(const char *path, ek_visit *visit, void *context, ek_error *error) {
    DIR *folder = opendir(path);
    if (!folder)
        return fail_with(error, errno, "list", path);
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat info;
        if (is_dots(entry->d_name))
            continue;
        bool file = fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode);
        visit(context, entry->d_name, file ? (uint64_t)info.st_size : 0);
    }
    closedir(folder);
    return EK_OK;
}

static void remove_file(void *context, const char *name, uint64_t bytes) {
    char path[EK_PATH_BYTES + 256];
    (void)bytes;
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    (void)unlink(path); /* what stays makes rmdir fail, which says so */
}

ek_status ek_path_remove(const char *path, ek_error *error) {
    if (unlink(path) == 0 || errno == ENOENT)
        return EK_OK;
    int number = errno;
    struct stat info;
    if (lstat(path, &info) != 0) /* a read-only file system refuses before it looks whether the file is there */
        return errno == ENOENT ? EK_OK : fail_with(error, number, "remove", path);
    if (!S_ISDIR(info.st_mode))
        return fail_with(error, number, "remove", path);
    (void)ek_folder_list(path, remove_file, (void *)path, error);
    return rmdir(path) == 0 || errno == ENOENT ? EK_OK : fail_with(error, errno, "remove", path);
}

bool ek_disk_free(const char *path, uint64_t *bytes) {
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return false;
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return true;
}

/* ---- what is in use ---- */

uint64_t ek_seconds_since(const struct stat *info) {
    time_t now = time(NULL);
    return (uint64_t)(now > info->st_ctime ? now - info->st_ctime : info->st_ctime - now);
}

typedef struct {
    const char *folder;
    uint64_t seconds;
} youngest;

static void look_at(void *context, const char *name, uint64_t bytes) {
    youngest *y = context;
    char path[EK_PATH_BYTES + 256];
    struct stat info;
    (void)bytes;
    snprintf(path, sizeof path, "%s/%s", y->folder, name);
    uint64_t seconds = lstat(path, &info) == 0 ? ek_seconds_since(&info) : 0;
    if (seconds < y->seconds)
        y->seconds = seconds;
}

bool ek_path_unused(const char *path, uint64_t *seconds) {
    struct stat info;
    ek_error unused;
    *seconds = 0;
    if (lstat(path, &info) != 0)
        return errno != ENOENT; /* what cannot be looked at counts as in use */
    youngest y = {path, ek_seconds_since(&info)};
    if (S_ISDIR(info.st_mode) && ek_folder_list(path, look_at, &y, &unused) != EK_OK)
        y.seconds = 0;
    *seconds = y.seconds;
    return true;
}

void ek_path_touch(const char *path) { (void)utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW); }

bool ek_link_target(const char *path, ek_path *target) {
    ssize_t n = readlink(path, target->text, sizeof target->text - 1);
    target->text[n > 0 ? n : 0] = 0;
    return n > 0;
}

ek_status ek_path_rename(const char *from, const char *to, ek_error *error) {
    return rename(from, to) == 0 ? EK_OK : fail_with(error, errno, "rename", from);
}
