/* `digest FILE…`: "sha256  bytes  path" lines. */
#include <inttypes.h>
#include <stdio.h>

#include "../core/sha256.h"
#include "files.h"
#include "words.h"

enum { PART = 1 << 20 };

/* In parts that are forgotten: a large file does not push others out of a small memory. */
static void print_digest(const ek_file *file, const char *path) {
    ek_sha256 hash;
    uint8_t digest[32];
    ek_sha256_start(&hash);
    for (size_t at = 0, part; at < file->size; at += part) {
        part = file->size - at < PART ? file->size - at : PART;
        ek_sha256_add(&hash, file->bytes + at, part);
        ek_file_forget(file->bytes + at, part);
    }
    ek_sha256_finish(&hash, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        printf("%02x", digest[i]);
    printf("  %zu  %s\n", file->size, path);
}

int ek_digest(const ek_options *options) {
    int code = 0;
    for (int i = 0; i < options->file_count; i++) {
        ek_error error;
        ek_file file;
        if (ek_file_map(options->files[i], &file, &error) == EK_OK) {
            print_digest(&file, options->files[i]);
            ek_file_unmap(&file);
        } else {
            fprintf(stderr, "edgekit-runner: %s\n", error.text);
            code = EK_EXIT_FAILED;
        }
    }
    return fflush(stdout) == 0 ? code : EK_EXIT_FAILED;
}
