"""The board's store: what was sent lies there under the digest of its content, and is sent once."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from edgekit.errors import IntegrityError
from edgekit.files import storage_errors
from edgekit.links.deadline import Deadline
from edgekit.links.progress import Moved, Progress
from edgekit.links.ssh import receive, runner
from edgekit.links.ssh.connection import Connection
from edgekit.links.ssh.errors import RemoteFileError

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
        digests: dict[str, str] = {}
        for path, digest in zip(files, hashed, strict=True):
            digests[path.name] = digest.result()
            _put_file(connection, path, digest.result(), folder, deadline, progress)
    return _make_data_folder(connection, folder, digests, deadline) if local.is_dir() else f"{folder}/{digests[local.name]}"


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
    """Bytes of a file, or of a folder of ``.npy`` files, that are not in the store. Raises: as ``put`` does."""
    folder = _folder(connection, deadline)
    sizes = {path: path.stat().st_size for path in (_arrays_in(local) if local.is_dir() else [local])}
    sftp = connection.sftp(deadline)
    there = {path: sftp.stat(f"{folder}/{sha256_of(path)}", deadline) for path in sizes}
    return sum(size for path, size in sizes.items() if (facts := there[path]) is None or facts.size != size)


def _arrays_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".npy" and path.is_file())


def _make_data_folder(connection: Connection, store: str, digests: dict[str, str], deadline: Deadline) -> str:
    """Links under the names of a data set's files to what is in the store; its path."""
    lines = "".join(sorted(f"{name} {digest}\n" for name, digest in digests.items()))
    folder = f"{store}/{hashlib.sha256(lines.encode()).hexdigest()}.data"
    sftp = connection.sftp(deadline)
    if sftp.stat(folder, deadline) is not None:
        return folder
    making = f"{folder}.{secrets.token_hex(4)}"
    sftp.mkdir(making, 0o700, deadline)
    for name, digest in digests.items():
        sftp.symlink(f"{making}/{name}", f"../{digest}", deadline)
    try:
        sftp.rename(making, folder, deadline)
    except RemoteFileError:
        if sftp.stat(folder, deadline) is None:
            raise
        for name in digests:  # another host was quicker
            sftp.remove(f"{making}/{name}", deadline)
        sftp.rmdir(making, deadline)
    return folder


def _put_file(connection: Connection, local: Path, digest: str, folder: str, deadline: Deadline, progress: Progress) -> None:
    size = local.stat().st_size
    path = f"{folder}/{digest}"
    if _arrived(connection, path, size, deadline):
        progress(Moved(local.name, size, size))
    else:
        _place(connection, local, digest, path, deadline, progress)


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
