"""Uploads through the runner's ``receive``, which writes, hashes and syncs on the board what a channel brings, while it comes.

SFTP has an answer for every piece, and a file that came by it must be read again to be verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import runner
from edgekit.links.ssh.connection import Connection, Finished
from edgekit.links.ssh.errors import ConnectionLost, RemoteFileError
from edgekit.links.ssh.sftp import file_error
from edgekit.links.ssh.stream import STALL, Stream

#: Called as a transfer moves on: bytes that the board has (those of earlier tries too), bytes in all.
Moved = Callable[[int, int], None]

_USAGE = 2  #: exit code of a runner that does not know the word


def send(connection: Connection, source: BinaryIO, size: int, part: str, deadline: Deadline, moved: Moved) -> str:
    """Bring ``source`` (of ``size`` bytes) to ``part`` on the board, from where that file ends.

    The board appends in order, so that whatever cuts this, the file is a piece of the source from its beginning.

    Returns:
        The SHA-256 in hexadecimal of the whole file, which is on the board's disk then.

    Raises:
        RemoteDiskFull: there is no room, which is seen before the first byte goes.
        NoRunner, WrongArchitecture, NoExec: nothing receives there.
        LinkError: the board is gone or refuses.
    """
    executable = runner.current(connection.home(deadline))
    stream = connection.start([executable, "receive", part, str(size)], deadline, STALL)
    lines = _lines(stream, deadline)
    try:
        answer = next(lines, "")
        if answer:
            _feed(stream, source, _offset(stream, answer), size, part, deadline, moved)
            stream.stall = None  # a slow disk may take a while for what it has in its cache
            answer = next(lines, "")
        done = connection.finish(stream, f"receiving {part}", deadline)
    except ConnectionLost:
        if not stream.channel.status_event.is_set():
            raise
        answer, done = "", connection.finish(stream, f"receiving {part}", deadline)  # it ended in the middle, and says why
    finally:
        stream.close()
    if not answer or done.code != 0:
        raise _fault(connection, executable, done, deadline)
    moved(size, size)
    return answer


def _feed(stream: Stream, source: BinaryIO, start: int, size: int, part: str, deadline: Deadline, moved: Moved) -> None:
    """Send the bytes from ``start`` on."""
    window, at = stream.channel.out_window_size, start
    moved(start, size)
    source.seek(start)
    while at < size:
        data = source.read(min(stream.packet, size - at))
        if not data:
            raise RemoteFileError(f"the file for {part} became shorter while it was sent", "send it again once it is complete")
        stream.send(data, deadline)
        at += len(data)
        moved(max(start, at - window + stream.channel.out_window_size), size)  # the window opens by what was taken


def _offset(stream: Stream, answer: str) -> int:
    if not answer.isdecimal():
        raise LinkError(
            f"{stream.name}: the runner begins with {answer[:32]!r}",
            "does the login shell on the board print something? It must be silent where it is not interactive",
        )
    return int(answer)


def _lines(stream: Stream, deadline: Deadline) -> Iterator[str]:
    """What comes, line by line."""
    buffer = b""
    while data := stream.read(deadline):
        *whole, buffer = (buffer + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)


def _fault(connection: Connection, executable: str, done: Finished, deadline: Deadline) -> LinkError:
    if runner.did_not_start(done):
        return runner.why_not_started(connection, executable, done, deadline)
    if done.code == _USAGE:
        return LinkError(
            f"{connection.name}: the runner on the board is too old to receive files",
            f"`edgekit flash {connection.name}` renews it",
        )
    words = done.words.removeprefix("edgekit-runner: ")
    return file_error(connection.name, words) or RemoteFileError(f"{connection.name}: {words}", "is the board's disk sound?")
