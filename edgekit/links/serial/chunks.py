"""A piece of data in chunks, as SMP's uploads of files and images have them: the board says how much is there."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from smp.message import WriteRequest

from edgekit.links.deadline import Deadline
from edgekit.links.serial.exchange import Answer, Window, refusal
from edgekit.links.serial.line import Line

_REST = 96  #: bytes of a message around a chunk: header, keys and numbers
_PIECE = 32768  #: bytes that go before others may do something
QUIET_SECONDS = 30.0  #: without any answer, after which a line counts as lost
ERASE_SECONDS = 120.0  #: … before the first one: a board may erase 4 MB of flash, in sectors of 64 KB, which take 0.7 s and more


class Upload(Protocol):
    """What is uploaded, and how its requests look. ``extra`` is what they take beside the data, _REST apart."""

    @property
    def data(self) -> bytes: ...

    @property
    def extra(self) -> int: ...

    def request(self, offset: int, part: bytes) -> WriteRequest: ...


def send_chunks(line: Line, upload: Upload, deadline: Deadline) -> Generator[int, None, Answer]:
    """Send all, from the beginning or from where the board says; gives the bytes that are there now and then.

    Returns the board's last answer: to the piece with which all was there, or one that refuses.

    Raises:
        LinkLost: the line is gone, nothing was answered for QUIET_SECONDS (at first ERASE_SECONDS), or the deadline is over.
    """
    data = upload.data
    chunk = line.most - _REST - upload.extra
    window = Window(line)
    begun = False  #: the board has answered: it may know of an earlier upload
    there = sent = paused = 0
    answer: Answer = {}
    quiet = Deadline.after(ERASE_SECONDS)
    while not begun or there < len(data):
        while (sent < len(data) if begun else window.empty) and window.has_room(chunk + 2 * _REST) and sent - paused < _PIECE:
            part = data[sent : sent + chunk]
            window.send(upload.request(sent, part), deadline)
            sent += len(part)
        taken = window.take(deadline)
        if taken is None:
            if not quiet.remaining():
                raise quiet.expired(f"{line.name}: the board")
            sent = paused = there
            continue
        answer = taken
        quiet = Deadline.after(QUIET_SECONDS)
        if refusal(answer) is not None:
            break
        begun = True
        there = int(answer["off"])
        if there > sent:
            window.clear()
        if window.empty:
            sent = paused = there
            yield there
    return answer
