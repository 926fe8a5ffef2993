"""Whole files by SFTP: many requests in flight, from the byte where an earlier try ended."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, Protocol

from edgekit.links.deadline import Deadline
from edgekit.links.ssh.errors import RemoteFileError
from edgekit.links.ssh.sftp import CREATE, WRITE, Code, Kind, Reply, Sftp, string

#: Called as a transfer moves on: bytes done (those of earlier tries too), bytes in all.
Moved = Callable[[int, int], None]

_FLIGHT = 4 << 20  #: bytes of requests that wait for their answer; a cut loses no more
_READ_SIZE = 1 << 16  #: bytes; every version of OpenSSH answers that whole
_HEADER = 29  #: bytes of a WRITE before its data, with OpenSSH's handle of 4


class Sink(Protocol):
    """What takes a file's bytes in order."""

    def write(self, data: bytes, /) -> object: ...


def upload(sftp: Sftp, source: BinaryIO, size: int, path: str, deadline: Deadline, moved: Moved) -> int:
    """Write ``source`` (of ``size`` bytes) to ``path`` on the board, from where that file ends; returns that offset.

    The board appends in order, so that whatever cuts this, the file is a piece of the source from its beginning.
    """
    handle = sftp.open(path, WRITE | CREATE, deadline)
    start = sftp.fstat(handle, deadline).size
    if start > size:  # another program's file
        start = 0
        sftp.ask(Kind.SETSTAT, string(path) + struct.pack(">IQ", 0x1, 0), path, deadline)
    moved(start, size)
    source.seek(start)
    _write_all(sftp, source, size, handle, path, start, deadline, moved)
    sftp.sync(handle, path, deadline)
    sftp.close(handle, path, deadline)
    return start


def _write_all(
    sftp: Sftp, source: BinaryIO, size: int, handle: bytes, path: str, start: int, deadline: Deadline, moved: Moved
) -> None:
    chunk = 4 * sftp.stream.packet - _HEADER  # whole SSH packets
    prefix = string(handle)
    pending: dict[int, int] = {}
    flight, offset, done = 0, start, start
    while offset < size or pending:
        while flight < _FLIGHT and offset < size:
            data = source.read(min(chunk, size - offset))
            if not data:
                raise RemoteFileError(
                    f"the file for {path} became shorter while it was sent", "send it again once it is complete"
                )
            number = sftp.submit(Kind.WRITE, prefix + struct.pack(">QI", offset, len(data)), deadline, data)
            pending[number] = len(data)
            offset, flight = offset + len(data), flight + len(data)
        for reply in sftp.replies(deadline):
            length = pending.pop(reply.number, 0)
            if reply.kind != Kind.STATUS or reply.code != Code.OK:
                raise sftp.fault(_settle(sftp, reply, pending, deadline), path, deadline, size - done)
            done, flight = done + length, flight - length
        moved(done, size)


def _settle(sftp: Sftp, reply: Reply, pending: dict[int, int], deadline: Deadline) -> Reply:
    """Wait for what is still in flight, so that the channel can be used again; returns the first answer."""
    while pending:
        for other in sftp.replies(deadline):
            pending.pop(other.number, None)
    return reply


def download(sftp: Sftp, handle: bytes, path: str, size: int, target: Sink, start: int, deadline: Deadline, moved: Moved) -> None:
    """Append the bytes from ``start`` to ``size`` of an open file on the board to ``target``, in order."""
    prefix = string(handle)
    asked: dict[int, tuple[int, int]] = {}  #: by request: offset and length
    came: dict[int, bytes] = {}  #: by offset
    offset = done = start
    while done < size:
        while offset < size and offset - done < _FLIGHT:
            length = min(_READ_SIZE, size - offset)
            asked[sftp.submit(Kind.READ, prefix + struct.pack(">QI", offset, length), deadline)] = (offset, length)
            offset += length
        for reply in sftp.replies(deadline):
            if reply.number not in asked:
                continue
            at, length = asked.pop(reply.number)
            if reply.kind != Kind.DATA:
                raise _cut_short(sftp, reply, path, {n: length for n, (_, length) in asked.items()}, deadline)
            data = reply.body[4:]
            came[at] = data
            if len(data) < length:  # a server that reads less at once
                rest = (at + len(data), length - len(data))
                asked[sftp.submit(Kind.READ, prefix + struct.pack(">QI", *rest), deadline)] = rest
        while done in came:
            data = came.pop(done)
            target.write(data)
            done += len(data)
        moved(done, size)


def _cut_short(sftp: Sftp, reply: Reply, path: str, pending: dict[int, int], deadline: Deadline) -> Exception:
    _settle(sftp, reply, pending, deadline)
    if reply.kind == Kind.STATUS and reply.code == Code.EOF:
        return RemoteFileError(f"{sftp.name}: {path} became shorter while it was read", "fetch it again once it is complete")
    return sftp.fault(reply, path, deadline)
