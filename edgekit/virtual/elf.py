"""Which shared libraries a program needs: the DT_NEEDED entries of a 64-bit little-endian ELF file (System V ABI, chapter 5)."""

from __future__ import annotations

import struct

from edgekit.errors import IntegrityError

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS = 1, 5


def needed(data: bytes) -> tuple[str, ...]:
    """Names of the libraries that the dynamic linker would load for the program or library ``data``; none where it is static.

    Raises:
        IntegrityError: ``data`` is no such ELF file.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise IntegrityError("not a 64-bit little-endian ELF file")
    try:
        segments = _segments(data)
        entries = [entry for kind, place, _, size in segments if kind == _DYNAMIC for entry in _dynamic(data, place, size)]
        if not any(tag == _STRINGS for tag, _ in entries):
            return ()
        strings = _place(segments, next(value for tag, value in entries if tag == _STRINGS))
        return tuple(_text(data, strings + value) for tag, value in entries if tag == _NEEDED)
    except (struct.error, ValueError, OverflowError) as error:
        raise IntegrityError(f"a damaged ELF file: {error}") from error


def _segments(data: bytes) -> list[tuple[int, int, int, int]]:
    """Type, place in the file, address and size in the file of each program header."""
    start, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    headers = (struct.unpack_from("<IIQQQQ", data, start + i * size) for i in range(count))
    return [(kind, place, address, length) for kind, _, place, address, _, length in headers]


def _dynamic(data: bytes, place: int, size: int) -> list[tuple[int, int]]:
    return [(tag, value) for tag, value in struct.iter_unpack("<QQ", data[place : place + size]) if tag]


def _place(segments: list[tuple[int, int, int, int]], address: int) -> int:
    """Where in the file lies what the program has at ``address``."""
    for kind, place, start, size in segments:
        if kind == _LOAD and start <= address < start + size:
            return place + address - start
    raise ValueError(f"no segment holds the address {address:#x}")


def _text(data: bytes, place: int) -> str:
    return data[place : data.index(b"\0", place)].decode()
