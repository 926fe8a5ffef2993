/* `receive FILE BYTES`: a file of so many bytes from stdin (docs/session-host.md). Hashing, and bringing the bytes to the disk, go
 * on while they come, so that little is left to do after the last one. */
#define _GNU_SOURCE /* sync_file_range */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../core/sha256.h"
#include "files.h"
#include "words.h"

enum { PIECE = 1 << 18, WRITEBACK = 8 << 20 };

typedef struct {
    const char *path;
    int fd;
    uint64_t bytes, at; /* of the whole file; those that are there */
    ek_sha256 hash;     /* of what is there */
} incoming;

static uint8_t piece[PIECE];

static ek_status fail(ek_error *error, const char *what, const incoming *file) {
    return ek_fail(error, EK_IO, "cannot %s %.160s: %s", what, file->path, strerror(errno));
}

/* Said before the first byte comes, so that nobody sends for nothing. */
static ek_status check_room(const incoming *file, ek_error *error) {
    uint64_t room, wanted = file->bytes - file->at;
    if (!ek_disk_free(file->path, &room) || room >= wanted)
        return EK_OK;
    if (file->at == 0)
        (void)unlink(file->path);
    return ek_fail(error, EK_NO_SPACE, "%.120s: %.1f MiB are to come, %.1f MiB are free: %s", file->path,
                   (double)wanted / (1 << 20), (double)room / (1 << 20), strerror(ENOSPC));
}

static ek_status begin(incoming *file, ek_error *error) {
    struct stat info;
    file->fd = open(file->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return fail(error, "open", file);
    file->at = (uint64_t)info.st_size;
    if (file->at > file->bytes) { /* another program's file */
        file->at = 0;
        if (ftruncate(file->fd, 0) != 0)
            return fail(error, "cut", file);
    }
    return check_room(file, error);
}

static ek_status hash_what_is_there(incoming *file, ek_error *error) {
    ek_sha256_start(&file->hash);
    while (file->hash.bytes < file->at) {
        uint64_t rest = file->at - file->hash.bytes;
        ssize_t n = pread(file->fd, piece, rest < PIECE ? (size_t)rest : PIECE, (off_t)file->hash.bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? fail(error, "read", file) : ek_fail(error, EK_IO, "%.160s became shorter", file->path);
        ek_sha256_add(&file->hash, piece, (size_t)n);
    }
    return EK_OK;
}

/* At its place, never at the end: who sends the same file to the same name meanwhile writes the same bytes there. */
static ek_status write_piece(incoming *file, size_t size, ek_error *error) {
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(file->fd, piece + done, size - done, (off_t)(file->at + done));
        if (n < 0 && errno != EINTR)
            return fail(error, "write", file);
        done += n > 0 ? (size_t)n : 0;
    }
    ek_sha256_add(&file->hash, piece, size);
    file->at += size;
    return EK_OK;
}

static void start_writeback(const incoming *file, uint64_t *started) {
    if (file->at - *started < WRITEBACK)
        return;
#ifdef __linux__
    (void)sync_file_range(file->fd, (off_t)*started, (off_t)(file->at - *started), SYNC_FILE_RANGE_WRITE);
#endif
    *started = file->at;
}

static ek_status take(incoming *file, ek_error *error) {
    for (uint64_t started = file->at; file->at < file->bytes; start_writeback(file, &started)) {
        uint64_t rest = file->bytes - file->at;
        ssize_t n = read(STDIN_FILENO, piece, rest < PIECE ? (size_t)rest : PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(error, "receive", file);
        if (n == 0)
            return ek_fail(error, EK_IO, "%.120s ends at %" PRIu64 " of %" PRIu64 " bytes", file->path, file->at, file->bytes);
        if (write_piece(file, (size_t)n, error) != EK_OK)
            return error->status;
    }
    return fsync(file->fd) == 0 ? EK_OK : fail(error, "write", file);
}

static ek_status receive(incoming *file, ek_error *error) {
    if (begin(file, error) != EK_OK)
        return error->status;
    printf("%" PRIu64 "\n", file->at);
    if (fflush(stdout) != 0)
        return fail(error, "answer about", file);
    if (hash_what_is_there(file, error) != EK_OK)
        return error->status;
    return take(file, error);
}

int ek_receive(const ek_options *options) {
    incoming file = {.path = options->file, .bytes = options->file_bytes};
    ek_error error;
    uint8_t digest[32];
    if (receive(&file, &error) != EK_OK) {
        fprintf(stderr, "edgekit-runner: %s\n", error.text);
        return EK_EXIT_FAILED;
    }
    ek_sha256_finish(&file.hash, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        printf("%02x", digest[i]);
    printf("\n");
    return fflush(stdout) == 0 ? 0 : EK_EXIT_FAILED;
}
