/* The public key that images must be signed with: EK_IMAGE_KEY is its 32 bytes, given by firmware/build.py. */
#include "image.h"

#ifndef EK_IMAGE_KEY
#define EK_IMAGE_KEY 0 /* nobody's: it is of small order, and no signature is good */
#endif

const uint8_t ek_image_key[32] = {EK_IMAGE_KEY};
