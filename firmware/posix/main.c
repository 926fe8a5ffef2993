/* edgekit-runner: trains on this machine what messages ask for (docs/protocol.md, docs/session-host.md). Only messages go to
 * stdout; what is for people goes to stderr. */
#include <string.h>

#include "runner.h"
#include "words.h"

static int version(const ek_options *options) {
    (void)options;
    ek_runner_print_version();
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *word;
        int (*run)(const ek_options *);
    } words[] = {{"serve", ek_serve}, {"attach", ek_attach}, {"host", ek_host},
                 {"receive", ek_receive}, {"usage", ek_usage}, {"check", ek_check}, {"version", version}};
    ek_options options;
    int code = ek_options_parse(&options, argc, argv);
    for (size_t i = 0; !code && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(options.word, words[i].word) == 0)
            return words[i].run(&options);
    return code;
}
