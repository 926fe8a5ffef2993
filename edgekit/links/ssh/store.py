"""The board's store: what was sent lies there under the digest of its content, and is sent once."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from edgekit.errors import IntegrityError
from edgekit.files import storage_errors
from edgekit.links.deadline import Deadline
from edgekit.links.progress import Moved, Progress
from edgekit.links.ssh import receive, runner
from edgekit.links.ssh.connection import Connection
from edgekit.links.ssh.errors import RemoteFileError, RemoteMissing

_TRIES = 3  #: a piece from before a power cut may hold anything, and another host may finish the same file meanwhile


def put(connection: Connection, local: Path, deadline: Deadline, progress: Progress) -> str:
    """Bring a file, or a folder of ``.npy`` files, to the store; its path on the board.

    Raises:
        StorageError: ``local`` cannot be read.
        IntegrityError: other bytes arrive than were sent, again and again.
        LinkError: the board is gone, full, or refuses.
    """
    files = _arrays_in(local) if local.is_dir() else [local]
    with _hashing(files) as hashed:
        folder = _folder(connection, deadline)
        unfinished = _Unfinished(connection, f"{folder}/{_key(files)}.data.part", deadline) if local.is_dir() else None
        digests: dict[str, str] = {}
        for path, digest in zip(files, hashed, strict=True):
            digests[path.name] = digest.result()
            size = path.stat().st_size
            if _is_there(connection, f"{folder}/{digest.result()}", size, deadline):
                progress(Moved(path.name, size, size))
                continue
            if unfinished:
                unfinished.link(digests)
            _place(connection, path, digest.result(), f"{folder}/{digest.result()}", deadline, progress)
    return unfinished.finish(folder, digests) if unfinished else f"{folder}/{digests[local.name]}"


@contextlib.contextmanager
def _hashing(files: list[Path]) -> Iterator[list[Future[str]]]:
    """Their digests to come: a file is hashed while the one before it is sent."""
    executor = ThreadPoolExecutor(1, "sha256")
    try:
        yield [executor.submit(sha256_of, path) for path in files]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def sha256_of(path: Path) -> str:
    """A file's digest in hexadecimal; known files are not read again.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors(f"cannot read {path}"):
        facts = path.stat()
        return _sha256(path.absolute(), facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(maxsize=256)
def _sha256(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(connection: Connection, local: Path, deadline: Deadline) -> int:
    """Bytes that ``put`` would send. What is there counts as used from now on: it is not removed for want of room.

    Raises: as ``put`` does.
    """
    folder = _folder(connection, deadline)
    sftp = connection.sftp(deadline)
    needed = 0
    for path in _arrays_in(local) if local.is_dir() else [local]:
        at, size = f"{folder}/{sha256_of(path)}", path.stat().st_size
        if not _is_there(connection, at, size, deadline):
            part = sftp.stat(f"{at}.part", deadline)
            needed += size - min(size, part.size if part else 0)
    return needed


def _arrays_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".npy" and path.is_file())


class _Unfinished:
    """A data set whose files are under way: links under their names to what is in the store, or will be.

    The links come before the files: what something links to is not removed for want of room, by whichever host.
    """

    def __init__(self, connection: Connection, folder: str, deadline: Deadline) -> None:
        self._connection = connection
        self._folder = folder
        self._deadline = deadline
        self._linked: set[str] = set()

    def link(self, digests: Mapping[str, str]) -> None:
        """Link the names to the files of these digests. The folder counts as used."""
        sftp = self._connection.sftp(self._deadline)
        sftp.mkdir(self._folder, 0o700, self._deadline)
        for name, digest in digests.items():
            if name in self._linked:
                continue
            sftp.remove(f"{self._folder}/{name}", self._deadline)  # of an earlier try
            sftp.symlink(f"{self._folder}/{name}", f"../{digest}", self._deadline)
            self._linked.add(name)

    def finish(self, store: str, digests: Mapping[str, str]) -> str:
        """Give it the name that follows from its content; its path."""
        lines = "".join(sorted(f"{name} {digest}\n" for name, digest in digests.items()))
        folder = f"{store}/{hashlib.sha256(lines.encode()).hexdigest()}.data"
        sftp = self._connection.sftp(self._deadline)
        if not _touch(self._connection, folder, 0o700, self._deadline):
            self.link(digests)
            try:
                sftp.rename(self._folder, folder, self._deadline)
            except RemoteFileError:  # another host was quicker
                if sftp.stat(folder, self._deadline) is None:
                    raise
            else:
                return folder
        if self._linked:
            for name in self._linked:
                sftp.remove(f"{self._folder}/{name}", self._deadline)
            sftp.rmdir(self._folder, self._deadline)
        return folder


def _key(files: list[Path]) -> str:
    """The same for the same files of this computer, before anything of them is read."""
    with storage_errors("cannot read a data set"):
        facts = [(path.absolute(), path.stat()) for path in files]
    lines = "".join(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n" for path, stat in facts)
    return hashlib.sha256(f"{socket.gethostname()}\n{lines}".encode()).hexdigest()[:16]


def _touch(connection: Connection, path: str, mode: int, deadline: Deadline) -> bool:
    """Count as used from now on, by the board's own clock; false where it is not there."""
    try:
        connection.sftp(deadline).chmod(path, mode, deadline)
    except RemoteMissing:
        return False
    except RemoteFileError:
        return True  # from a disk that cannot be written nothing is removed either
    return True


def _is_there(connection: Connection, path: str, size: int, deadline: Deadline) -> bool:
    """Whether a whole file is there, which then counts as used."""
    return _touch(connection, path, 0o600, deadline) and _arrived(connection, path, size, deadline)


def _place(connection: Connection, local: Path, digest: str, path: str, deadline: Deadline, progress: Progress) -> None:
    """Upload a file to ``path``, which appears there whole and verified, or not at all. ``<path>.part`` is what is under way."""
    for left in reversed(range(_TRIES)):
        try:
            found = _send(connection, local, f"{path}.part", deadline, progress)
            runner.check_digest(connection, f"{path}.part", digest, found)
            connection.sftp(deadline).rename(f"{path}.part", path, deadline)
        except IntegrityError:
            connection.sftp(deadline).remove(f"{path}.part", deadline)
            if not left:
                raise
        except RemoteFileError:
            if _arrived(connection, path, local.stat().st_size, deadline):
                return  # by another host, which renamed it under our hands
            if not left:
                raise
        else:
            return


def _arrived(connection: Connection, path: str, size: int, deadline: Deadline) -> bool:
    there = connection.sftp(deadline).stat(path, deadline)
    return there is not None and there.size == size


def _send(connection: Connection, local: Path, part: str, deadline: Deadline, progress: Progress) -> str:
    """Upload into an unfinished file, from where it ends; its SHA-256, as the board has it."""
    with storage_errors(f"cannot read {local}"):
        file = local.open("rb", buffering=0)
    with file:
        moved = lambda done, total: progress(Moved(local.name, done, total))  # noqa: E731
        return receive.send(connection, file, local.stat().st_size, part, deadline, moved)


def _folder(connection: Connection, deadline: Deadline) -> str:
    folder = f"{connection.home(deadline)}/store"
    connection.sftp(deadline).make_folders(folder, deadline)
    return folder
