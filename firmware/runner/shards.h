/* The message `shards` (docs/protocol.md): what a host must bring to the session that runs, and that it was brought. */
#ifndef EK_SHARDS_H
#define EK_SHARDS_H

#include "training.h"

ek_smp_handler ek_shards;

#endif
