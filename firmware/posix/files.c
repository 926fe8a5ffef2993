#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

ek_status ek_file_create(ek_new_file *file, const char *path, ek_error *error) {
    char name[TEMPORARY_BYTES];
    snprintf(file->path.text, sizeof file->path.text, "%s", path);
    file->handle = open(temporary(file, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return file->handle < 0 ? fail_with(error, errno, "create", name) : EK_OK;
}

ek_status ek_file_write(ek_new_file *file, const void *bytes, size_t size, ek_error *error) {
    const uint8_t *at = bytes;
    while (size) {
        ssize_t written = write(file->handle, at, size < 1 << 30 ? size : 1 << 30);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail_with(error, errno, "write", file->path.text);
        at += written;
        size -= (size_t)written;
    }
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
