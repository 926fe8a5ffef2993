"""The board at the other end of a serial line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import InputError, LinkError
from edgekit.files import write_atomic
from edgekit.links.deadline import Deadline
from edgekit.links.progress import Moved, Progress, silent
from edgekit.links.serial.exchange import Waiting
from edgekit.links.serial.files import digest, download, upload
from edgekit.links.serial.line import Line

_PROGRAM = ".ekp"  #: files of such names lie in the board's flash, where it has room
_NAME = 100  #: bytes of a file's name on the board


class SerialLink:
    """A connected board. A message that is not answered is sent again: the board answers it once."""

    def __init__(self, line: Line, progress: Progress = silent, *, for_now: bool = False) -> None:
        """``line`` is closed with the link. ``for_now``: programs displace none in the board's flash; they lie in RAM."""
        self.line = line
        self.name = line.name
        self.progress = progress
        self._for_now = for_now
        self._last = b""  #: the message that waits for its answer
        self._closed = False

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._check_open()
        if len(data) > self.line.most:
            raise LinkError(f"{self.name}: a message of {len(data)} bytes, the board takes {self.line.most}", "use shorter paths")
        self.line.forget()  # answers to what was given up on
        self._last = data
        self.line.send(data, deadline)

    def receive(self, deadline: Deadline) -> bytes:
        self._check_open()
        waiting = Waiting()
        while deadline.remaining():
            message = self.line.receive(waiting.left(deadline))
            if message is not None:
                return message
            if waiting.over() and self._last:
                self.line.send(self._last, deadline)
        raise deadline.expired(f"{self.name}: the board")

    def board_path(self, local: Path) -> str:
        local = local.absolute()
        name = f"{local.parent.name}/{local.name}"
        return name[-_NAME:]

    def user_path(self, path: str) -> str:
        return path  # no folders

    def put_file(self, local: Path, deadline: Deadline) -> str:
        """Send a file, under its digest, or the arrays of a folder; what is there already is not sent again."""
        self._check_open()
        for path, name in self._names(local):
            if digest(self.line, name, deadline) != _sha256(path):
                self._upload(path, name, deadline)
        return self._name(local)

    def missing(self, local: Path, deadline: Deadline) -> int:
        self._check_open()
        return sum(p.stat().st_size for p, name in self._names(local) if digest(self.line, name, deadline) != _sha256(p))

    def bring(self, data: bytes, remote: str, deadline: Deadline) -> Iterator[None]:
        self._check_open()
        for _ in upload(self.line, remote, data, deadline):
            yield

    def get_file(self, remote: str, local: Path, deadline: Deadline) -> None:
        self._check_open()
        data = download(self.line, remote, deadline, lambda done: self.progress(Moved(local.name, done, done)))
        write_atomic(local, data)

    def close(self) -> None:
        self._closed = True
        self.line.close()

    def _upload(self, path: Path, name: str, deadline: Deadline) -> None:
        data = path.read_bytes()
        for there in upload(self.line, name, data, deadline):
            self.progress(Moved(path.name, there, len(data)))

    def _names(self, local: Path) -> list[tuple[Path, str]]:
        """The files of a path, and what they are called on the board."""
        if not local.is_dir():
            return [(local, self._name(local))]
        files = [path for path in sorted(local.iterdir()) if path.suffix == ".npy"]
        if not files:
            raise InputError(f"{local} holds no arrays", "a data set is a folder with inputs.npy and targets.npy")
        return [(path, f"{self._name(local)}/{path.name}") for path in files]

    def _name(self, local: Path) -> str:
        """By content, so that what is on the board already is recognised."""
        if not local.is_dir():
            suffix = "" if self._for_now and local.suffix == _PROGRAM else local.suffix
            return f"{_sha256(local).hex()[:16]}{suffix}"
        rows = "".join(f"{path.name} {_sha256(path).hex()}\n" for path in sorted(local.iterdir()) if path.suffix == ".npy")
        return hashlib.sha256(rows.encode()).hexdigest()[:16]

    def _check_open(self) -> None:
        if self._closed:
            raise LinkError(f"{self.name}: the connection is closed", "connect again")


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
