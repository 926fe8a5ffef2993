/* SMP group 1, image management: what is in the two slots, upload into the one that does not run, trial and confirmation. */
#ifndef EK_IMAGEGROUP_H
#define EK_IMAGEGROUP_H

#include "../boot/incoming.h"
#include "../boot/slots.h"
#include "../runner/smp.h"

enum { EK_IMAGE_GROUP = 1 };

/* `flash`, `key` and `running` are set; the rest is zero. */
typedef struct {
    const ek_flash *flash;
    const uint8_t *key; /* that images must be signed with */
    int running;        /* the slot of this program */

    ek_incoming in; /* the upload: one that is whole is kept in mind, so that its last chunk may come twice */

    ek_image_verdict verdict[EK_SLOTS]; /* of the slots that were looked at since they were written */
    bool looked[EK_SLOTS];
} ek_images;

/* The group's handlers, whose context is an ek_images. */
extern const ek_smp_command ek_image_commands[];

/* Whether this program runs on trial: the next start goes back to the other one. */
bool ek_images_on_trial(const ek_images *images);

#endif
