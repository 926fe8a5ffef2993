/* The home folder (docs/session-host.md). */
#ifndef EK_HOME_H
#define EK_HOME_H

#include <sys/types.h>

#include "../runner/platform.h"

/* The option's folder, or $EDGEKIT_HOME, or ~/.edgekit, as an absolute path; it and its run/ are made where they are missing. It
 * becomes the working directory: "run/socket" then fits into the address of a socket, whose text is short. */
ek_status ek_home_enter(const char *option, ek_path *home, ek_error *error);

/* Hold run/lock until the process ends. 1: held; 0: another process holds it; -1: errno says why not. */
int ek_home_lock(void);

/* The process that holds run/lock, or 0. */
pid_t ek_home_holder(void);

/* A socket and the address of run/socket: for bind and connect. Non-blocking. -1: errno says why. */
int ek_home_socket(void);
int ek_home_connect(int fd);
int ek_home_listen(int fd, int backlog);

#endif
