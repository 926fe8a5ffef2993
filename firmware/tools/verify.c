/* verify PROGRAMS.bin [--run]
 *
 * Verifies many Programs in one process: the file holds them one after the other, each behind its size (u64). Prints a line for each:
 * its status, a tab, the message. With --run, those that pass also run, as in the fuzz target. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next program of the file in memory of its own, or NULL at the end. */
static uint8_t *next_program(FILE *file, uint64_t *size)
{
    void *bytes = NULL;
    if (fread(size, sizeof *size, 1, file) != 1 || posix_memalign(&bytes, EK_ALIGN, *size > 0 ? (size_t)*size : 1) != 0)
        return NULL;
    if (fread(bytes, 1, (size_t)*size, file) == *size)
        return bytes;
    free(bytes);
    return NULL;
}

int main(int count, char **words)
{
    int run = count == 3 && strcmp(words[2], "--run") == 0;
    FILE *file = count == 2 || run ? fopen(words[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: verify PROGRAMS.bin [--run]\n");
        return EK_BAD_REQUEST;
    }
    uint64_t size;
    uint8_t *bytes;
    while ((bytes = next_program(file, &size))) {
        ek_program program;
        ek_error error = {EK_OK, ""};
        ek_status status = ek_program_open(&program, bytes, (size_t)size, &error);
        printf("%d\t%s\n", (int)status, error.text);
        fflush(stdout);
        if (run && status == EK_OK)
            LLVMFuzzerTestOneInput(bytes, (size_t)size);
        free(bytes);
    }
    fclose(file);
    return 0;
}
