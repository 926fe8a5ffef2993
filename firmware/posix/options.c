#include "options.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_posix.h"

enum { IDLE_SECONDS = 600, MOST_SECONDS = 1 << 20 };

static const char usage[] = "usage: edgekit-runner [--threads N] [--isa NAME] [serve]\n"
                            "       edgekit-runner attach [--home DIR] [--threads N] [--isa NAME] [--idle SECONDS]\n"
                            "       edgekit-runner host [--home DIR] [--threads N] [--isa NAME] [--idle SECONDS]\n"
                            "       edgekit-runner check [--home DIR] [--threads N] [--isa NAME]\n"
                            "       edgekit-runner usage [--home DIR]\n"
                            "       edgekit-runner receive FILE BYTES\n"
                            "       edgekit-runner version\n";

static const char *const words[] = {"serve", "attach", "host", "check", "usage", "receive", "version", NULL};

static int mistake(const char *what, const char *word) {
    fprintf(stderr, "edgekit-runner: %s %s\n%s", what, word, usage);
    return EK_EXIT_USAGE;
}

/* False: no whole number from 1 to `most`. */
static bool read_number(const char *text, long most, int *number) {
    char *end;
    long n = strtol(text, &end, 10);
    if (*end || end == text || n < 1 || n > most)
        return false;
    *number = (int)n;
    return true;
}

static int set_option(ek_options *o, const char *name, const char *value) {
    if (strcmp(name, "--threads") == 0)
        return read_number(value, EK_MAX_THREADS, &o->threads) ? 0 : mistake("the number of threads must be 1 to 256, not", value);
    if (strcmp(name, "--idle") == 0)
        return read_number(value, MOST_SECONDS, &o->idle) ? 0 : mistake("the seconds must be 1 to 1048576, not", value);
    if (strcmp(name, "--isa") == 0)
        o->isa = value;
    else if (strcmp(name, "--home") == 0)
        o->home = value;
    else
        return mistake("unknown option", name);
    return 0;
}

static const char *find_word(const char *text) {
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], text) == 0)
            return words[i];
    return NULL;
}

static int set_file(ek_options *o, char **words_after, int count) {
    if (count != 2)
        return mistake("a file and its bytes must follow", "receive");
    char *end;
    o->file = words_after[0];
    o->file_bytes = strtoull(words_after[1], &end, 10);
    return *end || end == words_after[1] || *words_after[1] == '-' ? mistake("no number of bytes:", words_after[1]) : 0;
}

int ek_options_parse(ek_options *o, int argc, char **argv) {
    *o = (ek_options){.word = "serve", .idle = IDLE_SECONDS};
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            if (i + 1 == argc)
                return mistake("no value after", argv[i]);
            int code = set_option(o, argv[i], argv[i + 1]);
            if (code)
                return code;
            i++;
            continue;
        }
        const char *word = find_word(argv[i]);
        if (!word)
            return mistake("unknown word", argv[i]);
        o->word = word;
        if (strcmp(word, "receive") == 0)
            return set_file(o, argv + i + 1, argc - i - 1);
    }
    return 0;
}
