/* The words of edgekit-runner (docs/session-host.md): each runs to its end and returns the exit code. */
#ifndef EK_WORDS_H
#define EK_WORDS_H

#include "options.h"

int ek_serve(const ek_options *options);
int ek_host(const ek_options *options);
int ek_attach(const ek_options *options);
int ek_receive(const ek_options *options);
int ek_usage(const ek_options *options);
int ek_check(const ek_options *options);

#endif
