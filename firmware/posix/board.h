/* What this machine is and what its sensors say. */
#ifndef EK_BOARD_H
#define EK_BOARD_H

#include "../runner/platform.h"

/* Everything but isa and threads. */
ek_board ek_board_describe(void);

/* Processors that this process may use. */
int ek_board_usable_cores(void);

uint64_t ek_board_clock(void);

/* A number that no other start of this program has. */
uint64_t ek_board_instance(void);

/* The path of this program's file; false where the system does not say. */
bool ek_board_executable(ek_path *path);

void ek_board_read_sensors(const ek_path *paths, ek_readings *readings);

#endif
