"""Frames on a serial line (docs/protocol.md, "Serial line"): console framing and COBS, each told from the other by its bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import IntEnum

from cobs import cobs
from smp.exceptions import SMPException
from smp.packet import CONTINUE_DELIMITER, START_DELIMITER, decode, encode

_LONGEST = 1 << 17  #: bytes without the end of a frame or a line; more is noise
_CRC_BYTES = 4


class Kind(IntEnum):
    """What a frame holds; console framing has only messages, and what is outside of its frames is the log."""

    MESSAGE = 1
    LOG = 2
    HELLO = 3
    BAUD = 4


@dataclass(frozen=True)
class Frame:
    kind: Kind
    payload: bytes


def encode_console(message: bytes) -> bytes:
    """A message as lines of base64 that any SMP tool understands."""
    return b"".join(encode(message))


def encode_cobs(kind: Kind, payload: bytes) -> bytes:
    """A frame between two zeros."""
    body = bytes([kind]) + payload
    stuffed: bytes = cobs.encode(body + zlib.crc32(body).to_bytes(_CRC_BYTES, "little"))
    return b"\0" + stuffed + b"\0"


class Deframer:
    """Bytes in, whole frames out; what is damaged is counted and left out."""

    def __init__(self) -> None:
        self.dropped = 0
        self._buffer = b""
        self._lines: Generator[None, bytes, bytes] | None = None  #: of a console frame of which the beginning is there

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes."""
        self._buffer += data
        while (taken := self._take()) is not None:
            if isinstance(taken, Frame):
                yield taken
        if len(self._buffer) > _LONGEST:
            self._buffer = b""
            self.dropped += 1

    def _take(self) -> Frame | bool | None:
        """One frame; True: something was consumed; None: more bytes are needed."""
        start = self._start()
        if start > 0:
            return self._text(start)
        if self._buffer[:1] == b"\0":
            return self._cobs()
        if self._buffer[:2] in (START_DELIMITER, CONTINUE_DELIMITER):
            return self._console()
        return None

    def _start(self) -> int:
        """Where the next frame begins, or text ends."""
        places = [p for p in map(self._buffer.find, (b"\0", START_DELIMITER, CONTINUE_DELIMITER)) if p >= 0]
        end = self._buffer.rfind(b"\n") + 1
        return min(places) if places else end

    def _text(self, size: int) -> Frame | bool:
        line, found, rest = self._buffer[:size].partition(b"\n")
        self._buffer = rest + self._buffer[size:]
        text = line.strip(b"\r")
        if not found or not text:
            return True  # half a line before a frame: it was cut
        return Frame(Kind.LOG, text)

    def _cobs(self) -> Frame | bool | None:
        end = self._buffer.find(b"\0", 1)
        if end < 0:
            return None
        body, self._buffer = self._buffer[1:end], self._buffer[end:]
        if not body:
            return True  # the end of a frame, and the beginning of the next one
        frame = _open_cobs(body)
        if frame is None:
            self.dropped += 1
            return True  # what ended it may begin the next one
        self._buffer = self._buffer[1:]
        return frame

    def _console(self) -> Frame | bool | None:
        end = self._buffer.find(b"\n") + 1
        zero = self._buffer.find(b"\0")
        if zero >= 0 and (end == 0 or zero < end):
            return self._drop(zero)
        if end == 0:
            return None
        packet, self._buffer = self._buffer[:end], self._buffer[end:]
        if packet[:2] == START_DELIMITER:
            self._lines = decode()
            next(self._lines)
        if self._lines is None:
            return self._drop(0)
        try:
            self._lines.send(packet)
        except StopIteration as whole:
            self._lines = None
            return Frame(Kind.MESSAGE, whole.value)
        except (SMPException, struct.error, ValueError):  # a wrong CRC, no base64, too short for its length
            return self._drop(0)
        return True

    def _drop(self, size: int) -> bool:
        self._buffer = self._buffer[size:]
        self._lines = None
        self.dropped += 1
        return True


def _open_cobs(body: bytes) -> Frame | None:
    try:
        raw = cobs.decode(body)
    except cobs.DecodeError:
        return None
    content, crc = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if not content or zlib.crc32(content) != int.from_bytes(crc, "little") or content[0] not in set(Kind):
        return None
    return Frame(Kind(content[0]), content[1:])
