/* CRC-32 (ISO-HDLC, as zlib's crc32). */
#ifndef EK_CRC32_H
#define EK_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t ek_crc32(const void *bytes, size_t size);

/* Of what follows bytes whose CRC is `crc`. */
uint32_t ek_crc32_more(uint32_t crc, const void *bytes, size_t size);

#endif
