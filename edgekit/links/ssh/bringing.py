"""Files written piece by piece, beside messages on the same connection."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh.errors import RemoteMissing
from edgekit.links.ssh.sftp import CREATE, WRITE, Code, Kind, Reply, Sftp, string

_LEAST, _MOST = 1 << 15, 4 << 20  #: bytes in flight
_SOON = 0.25  #: seconds in which a write should be answered: a message that is sent behind what is in flight waits as long
_HEADER = 29  #: bytes of a WRITE before its data, with OpenSSH's handle of 4
_PACKETS = 4  #: that a write fills on a fast link


class Bringing:
    """A file channel whose bytes in flight follow the link's speed, so that messages on the same connection stay quick."""

    def __init__(self, sftp: Sftp) -> None:
        self._sftp = sftp
        self._limit = _LEAST  #: bytes in flight
        self._first = True  #: nothing was brought on this channel
        self._flight: dict[int, tuple[int, float]] = {}  #: by request: bytes, and when it was sent

    def bring(self, data: bytes, path: str, deadline: Deadline) -> Iterator[None]:
        """As Link.bring: ``<path>.part`` until it is whole."""
        sftp, part = self._sftp, f"{path}.part"
        self._flight.clear()  # of a file that was given up on; their answers are passed over
        first, self._first = self._first, False
        if first and self._is_there(path, len(data), deadline):
            return
        handle = sftp.open(part, WRITE | CREATE, deadline)
        start = sftp.fstat(handle, deadline).size
        if start > len(data):  # of no use
            start = 0
            sftp.ask(Kind.SETSTAT, string(part) + struct.pack(">IQ", 0x1, 0), part, deadline)
        try:
            yield from self._write(memoryview(data), start, handle, part, deadline)
        except GeneratorExit:
            with contextlib.suppress(LinkError):
                sftp.submit(Kind.CLOSE, string(handle), deadline)
            raise
        sftp.close(handle, part, deadline)
        try:
            sftp.rename(part, path, deadline)
        except RemoteMissing:
            return  # another host, which brings the same, was quicker

    def _is_there(self, path: str, size: int, deadline: Deadline) -> bool:
        """Whether the file was brought before a cut, whose answer was lost. Two copies would take the room of two."""
        there = self._sftp.stat(path, deadline)
        if there is not None and there.size != size:
            self._sftp.remove(path, deadline)
        return there is not None and there.size == size

    def _write(self, data: memoryview, offset: int, handle: bytes, path: str, deadline: Deadline) -> Iterator[None]:
        sftp, prefix = self._sftp, string(handle)
        while offset < len(data) or self._flight:
            while offset < len(data) and sum(size for size, _ in self._flight.values()) < self._limit:
                piece = data[offset : offset + self._piece()]
                number = sftp.submit(Kind.WRITE, prefix + struct.pack(">QI", offset, len(piece)), deadline, piece)
                self._flight[number] = (len(piece), time.monotonic())
                offset += len(piece)
            for reply in sftp.replies(deadline):
                self._take(reply, path, deadline)
            yield

    def _piece(self) -> int:
        packet = self._sftp.stream.packet
        return (_PACKETS * packet if self._limit >= 2 * _PACKETS * packet else min(packet, _LEAST)) - _HEADER

    def _take(self, reply: Reply, path: str, deadline: Deadline) -> None:
        size, sent = self._flight.pop(reply.number, (0, 0.0))
        if size == 0:
            return
        if reply.kind != Kind.STATUS or reply.code != Code.OK:
            raise self._sftp.fault(reply, path, deadline, size)
        if time.monotonic() - sent < _SOON:
            self._limit = min(self._limit + size, _MOST)
        else:
            self._limit = max(self._limit - size // 2, _LEAST)
