"""What a microcontroller's ELF file puts into flash (System V ABI, chapter 5; 32 bits, little-endian)."""

from __future__ import annotations

import struct

from edgekit.errors import IntegrityError

_HEADER = struct.Struct("<28xI10xHH")
_SEGMENT = struct.Struct("<IIIIII8x")
_LOAD = 1


def flat(data: bytes) -> tuple[int, bytes]:
    """The lowest address that is loaded, and all bytes from there on, gaps filled with zeros.

    Raises:
        IntegrityError: ``data`` is no such ELF file, or loads nothing.
    """
    if data[:6] != b"\x7fELF\x01\x01":
        raise IntegrityError("not a 32-bit little-endian ELF file")
    try:
        start, size, count = _HEADER.unpack_from(data)
        segments = [_SEGMENT.unpack_from(data, start + i * size) for i in range(count)]
    except struct.error as error:
        raise IntegrityError(f"a damaged ELF file: {error}") from error
    loaded = [(address, place, length) for kind, place, _, address, length, _ in segments if kind == _LOAD and length]
    if not loaded:
        raise IntegrityError("an ELF file that loads nothing")
    low = min(address for address, _, _ in loaded)
    out = bytearray(max(address + length for address, _, length in loaded) - low)
    for address, place, length in loaded:
        out[address - low : address - low + length] = data[place : place + length]
    return low, bytes(out)
