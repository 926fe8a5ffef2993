/* Programs in flash: two slots, so that a program which is pushed leaves the loaded one alone, takes no RAM, and is still there
 * after a reset. What a reset or a power cut leaves of one that comes with its digest goes on (boot/incoming.h). All other files, and programs where there is no slot for them, go where the platform had them go. */
#ifndef EK_PROGRAMS_H
#define EK_PROGRAMS_H

#include "../boot/incoming.h"
#include "../runner/platform.h"

/* Take files whose names end in ".ekp" from the platform, whose other members stay. After ek_store_join, and once a start. */
void ek_programs_join(ek_platform *platform, const ek_flash *flash);

#endif
