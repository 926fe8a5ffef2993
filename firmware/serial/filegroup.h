/* SMP group 8, file management: upload, download, length and hash of the platform's files, by name. */
#ifndef EK_FILEGROUP_H
#define EK_FILEGROUP_H

#include "../runner/platform.h"
#include "../runner/smp.h"

enum { EK_FILE_GROUP = 8 };

/* `platform` is set; the rest is zero. */
typedef struct {
    const ek_platform *platform;
    ek_path name; /* of the upload under way; "" where there is none */
    ek_new_file file;
    uint64_t length;
    uint8_t digest[32]; /* that the host gave with it */
    bool has_digest;
} ek_files;

/* The group's handlers, whose context is an ek_files. */
extern const ek_smp_command ek_file_commands[];

#endif
