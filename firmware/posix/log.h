/* What the host says: lines on stderr, which is run/log where `attach` started it. */
#ifndef EK_LOG_H
#define EK_LOG_H

/* A line with the time. Where stderr is run/log and longer than 256 KiB, it becomes run/log.1, and a new one begins. */
void ek_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Open run/log for stderr of a host. -1: errno says why. */
int ek_log_open(void);

#endif
