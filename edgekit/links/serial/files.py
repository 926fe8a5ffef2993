"""Files over a line: SMP's file group, a window of requests at a time. What a cut left on the board is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smp.file_management import FileDownloadRequest, FileHashChecksumRequest, FileUploadRequest

from edgekit.errors import DeviceError, EdgekitError, LinkError, StorageError
from edgekit.links.deadline import Deadline
from edgekit.links.serial.chunks import send_chunks
from edgekit.links.serial.exchange import Window, ask, refusal
from edgekit.links.serial.line import Line

_REST = 96  #: bytes of a download's request and of an answer around its data
_NOT_FOUND, _OPEN_FAILED, _WRITE_FAILED, _BAD_OFFSET = 3, 5, 10, 11  #: the file group's codes
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
        DeviceError: its flash fails, or holds something else than was sent.
        LinkLost: the line is gone, or the deadline over.
    """
    sha = hashlib.sha256(data).digest()
    for _ in range(_STARTS):
        code = refusal((yield from send_chunks(line, Chunks(name, data, sha), deadline)))
        if code is None or (code == _BAD_OFFSET and digest(line, name, deadline) == sha):  # or its last answer was lost
            return
        if code != _BAD_OFFSET:
            raise _refused(line, name, len(data), code)
    raise LinkError(f"{line.name}: the upload of {name} began {_STARTS} times and was forgotten", "does the board restart?")


@dataclass(frozen=True)
class Chunks:
    """A file's upload requests; the first one says what the file is."""

    name: str
    data: bytes
    sha: bytes

    @property
    def extra(self) -> int:
        return len(self.name.encode())

    def request(self, offset: int, part: bytes) -> UploadRequest:
        if offset:
            return UploadRequest(off=offset, data=part, name=self.name)
        return UploadRequest(off=0, data=part, name=self.name, len=len(self.data), sha=self.sha)


def download(line: Line, name: str, deadline: Deadline, moved: Moved) -> bytes:
    """A file of the board.

    Raises:
        StorageError: there is none.
        LinkLost: the line is gone, or the deadline over.
    """
    first = ask(line, FileDownloadRequest(off=0, name=name), deadline)
    if refusal(first) is not None:
        raise _refused(line, name, 0, refusal(first))
    data, size = bytearray(first["data"]), int(first["len"])
    chunk = max(1, len(data))
    window, asked = Window(line), len(data)
    while len(data) < size:
        while asked < size and window.has_room(4 * _REST + len(name)) and asked - len(data) < 4 * chunk:
            window.send(FileDownloadRequest(off=asked, name=name), deadline)
            asked += chunk
        answer = window.take(deadline)
        if answer is not None and refusal(answer) is not None:
            raise _refused(line, name, size, refusal(answer))
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
    if refusal(answer) == _NOT_FOUND:
        return None
    if refusal(answer) is not None:
        raise _refused(line, name, 0, refusal(answer))
    return bytes(answer["output"])


def _refused(line: Line, name: str, size: int, code: int | None) -> EdgekitError:
    if code == _NOT_FOUND:
        return StorageError(f"{line.name}: there is no file {name} on the board, or it gave way to others", "send it again")
    if code == _WRITE_FAILED:
        return DeviceError(
            f"{line.name}: the board's flash cannot be written, or does not hold {name} as it was sent",
            "try again; if it stays so, the flash is worn out",
        )
    if code == _OPEN_FAILED:
        return StorageError(f"{line.name}: the board has no room for {name} ({size} bytes)", "a smaller --batch, or --stream")
    return LinkError(f"{line.name}: the board refuses {name} (code {code})", "are edgekit and the firmware of one version?")
