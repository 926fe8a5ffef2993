"""Cuts a stream of bytes into SMP messages: the header's length says where each ends."""

from __future__ import annotations

import struct

from smp.header import Header

from edgekit.errors import LinkError

MAX_LENGTH = 1 << 15  #: of a message's CBOR; a longer one is no message but noise
_RESPONSES = (0b01001, 0b01011)  #: the first byte's low bits: version 2, read response or write response


class Assembler:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what has come."""
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole message, None until it is there.

        Raises:
            LinkError: what has come is no SMP response.
        """
        if len(self._buffer) < Header.SIZE:
            return None
        first, _, length = struct.unpack_from(">BBH", self._buffer)
        if first & 0b11111 not in _RESPONSES or length > MAX_LENGTH:
            raise LinkError(
                f"the board sends something that is no SMP response: {bytes(self._buffer[:32])!r}",
                "does the address lead to an edgekit runner, and of this version?",
            )
        end = Header.SIZE + length
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        return message
