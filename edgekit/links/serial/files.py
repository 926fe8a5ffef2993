"""Files over a line: SMP's file group, a window of requests at a time. What a cut left on the board is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator

from smp.file_management import FileDownloadRequest, FileHashChecksumRequest, FileUploadRequest

from edgekit.errors import LinkError, StorageError
from edgekit.links.deadline import Deadline
from edgekit.links.serial.exchange import Answer, Window, ask
from edgekit.links.serial.line import Line

_REST = 96  #: bytes of a message around a chunk: header, keys and numbers; the name comes on top
_NOT_FOUND, _OPEN_FAILED, _WRITE_FAILED, _BAD_OFFSET = 3, 5, 10, 11  #: the file group's codes
_PIECE = 32768  #: bytes that an upload moves before it lets others do something
_STARTS = 20  #: of one upload: what the board has forgotten begins again

#: Told how many bytes are there.
Moved = Callable[[int], None]


class UploadRequest(FileUploadRequest):
    """With the file's digest an upload goes on where an earlier one was cut."""

    sha: bytes | None = None


def upload(line: Line, name: str, data: bytes, deadline: Deadline) -> Iterator[int]:
    """Write a file on the board; gives the bytes that are there now and then, when nothing is on its way.

    Raises:
        StorageError: the board has no room.
        LinkLost: the line is gone, or the deadline over.
    """
    sha = hashlib.sha256(data).digest()
    for _ in range(_STARTS):
        code = yield from _upload(line, name, data, sha, deadline)
        if code is None or (code == _BAD_OFFSET and digest(line, name, deadline) == sha):  # or its last answer was lost
            return
        if code != _BAD_OFFSET:
            raise _refused(line, name, len(data), code)
    raise LinkError(f"{line.name}: the upload of {name} began {_STARTS} times and was forgotten", "does the board restart?")


def _upload(line: Line, name: str, data: bytes, sha: bytes, deadline: Deadline) -> Generator[int, None, int | None]:
    """From the beginning, or from where the board says; the code that it refuses with, None where all is there."""
    chunk = line.most - _REST - len(name.encode())
    window = Window(line)
    begun = False  #: the board has answered: it may know of an earlier upload
    there = sent = paused = 0
    while not begun or there < len(data):
        while (sent < len(data) if begun else window.empty) and window.has_room(chunk + 2 * _REST) and sent - paused < _PIECE:
            part = data[sent : sent + chunk]
            window.send(_request(name, sent, part, len(data), sha), deadline)
            sent += len(part)
        answer = window.take(deadline)
        if answer is None:
            sent = there
            continue
        if (code := _code(answer)) is not None:
            return code
        begun = True
        there = int(answer["off"])
        if there > sent:
            window.clear()
        if window.empty:
            sent = paused = there
            yield there
    return None


def _request(name: str, offset: int, part: bytes, size: int, sha: bytes) -> UploadRequest:
    """Of one chunk; the first one says what the file is."""
    if offset:
        return UploadRequest(off=offset, data=part, name=name)
    return UploadRequest(off=0, data=part, name=name, len=size, sha=sha)


def download(line: Line, name: str, deadline: Deadline, moved: Moved) -> bytes:
    """A file of the board.

    Raises:
        StorageError: there is none.
        LinkLost: the line is gone, or the deadline over.
    """
    first = ask(line, FileDownloadRequest(off=0, name=name), deadline)
    if _code(first) is not None:
        raise _refused(line, name, 0, _code(first))
    data, size = bytearray(first["data"]), int(first["len"])
    chunk = max(1, len(data))
    window, asked = Window(line), len(data)
    while len(data) < size:
        while asked < size and window.has_room(4 * _REST + len(name)) and asked - len(data) < 4 * chunk:
            window.send(FileDownloadRequest(off=asked, name=name), deadline)
            asked += chunk
        answer = window.take(deadline)
        if answer is not None and _code(answer) is not None:
            raise _refused(line, name, size, _code(answer))
        if answer is None or int(answer["off"]) != len(data) or not answer["data"]:
            window.clear()
            asked = len(data)
            continue
        data += answer["data"]
        moved(len(data))
    if hashlib.sha256(data).digest() != digest(line, name, deadline):
        raise LinkError(f"{line.name}: {name} changed while it was fetched", "fetch it again")
    return bytes(data)


def digest(line: Line, name: str, deadline: Deadline) -> bytes | None:
    """A file's SHA-256, computed on the board; None where there is no such file."""
    answer = ask(line, FileHashChecksumRequest(name=name, type="sha256"), deadline)
    if _code(answer) == _NOT_FOUND:
        return None
    if _code(answer) is not None:
        raise _refused(line, name, 0, _code(answer))
    return bytes(answer["output"])


def _code(answer: Answer) -> int | None:
    """What the board refuses with: the group's own code, or mcumgr's, negative; None: it does not."""
    error = answer.get("err")
    if error is None:
        return None
    return int(error["rc"]) if error["group"] != 0 else -int(error["rc"])


def _refused(line: Line, name: str, size: int, code: int | None) -> LinkError | StorageError:
    if code == _NOT_FOUND:
        return StorageError(f"{line.name}: there is no file {name} on the board, or it gave way to others", "send it again")
    if code in (_OPEN_FAILED, _WRITE_FAILED):
        return StorageError(f"{line.name}: the board has no room for {name} ({size} bytes)", "a smaller --batch, or --stream")
    return LinkError(f"{line.name}: the board refuses {name} (code {code})", "are edgekit and the firmware of one version?")
