"""Writing files so that a reader never sees half of one, and a full disk is a clear error."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import platformdirs

from edgekit.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_root() -> Path:
    """What can be made again: ``$EDGEKIT_CACHE``, or the platform's place for it."""
    return Path(os.environ.get("EDGEKIT_CACHE") or platformdirs.user_cache_path("edgekit"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, so that two processes do not make the same thing twice. The file is made, and stays."""
    with path.open("w") as file:
        flock(file, LOCK_EX)
        yield


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn an ``OSError`` inside into a StorageError that says ``what`` could not be done."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, error) from error


def storage_error(what: str, error: OSError) -> StorageError:
    """The StorageError of an ``OSError``."""
    if error.errno in _FULL:
        return StorageError(f"{what}: the disk is full ({error.strerror})", "free some space, or choose another folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{what}: {error.strerror}", "choose a folder that you may write to")
    return StorageError(f"{what}: {error.strerror or error}")


def write_atomic(path: Path, data: bytes | Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Write ``path`` whole or not at all: a temporary file beside it, fsync, rename, fsync of the folder.

    ``data`` is the bytes, or a function that writes them to an open file. ``mode`` is the
    file's, before the umask: 0o600 for secrets.

    Raises:
        StorageError: the disk is full, or the folder is not there or not writable. ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(f"cannot write {path}"):
        try:
            temporary.touch(mode)
            with temporary.open("wb") as file:
                if callable(data):
                    data(file)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy`` (C order, little-endian), whole or not at all.

    ``numpy.save`` is not used: where the disk is full, its error does not say so.

    Raises: as ``write_atomic`` does.
    """
    write_atomic(path, lambda file: _write_npy(file, array))


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """The array as the bytes of a ``.npy`` file (C order, little-endian)."""
    file = io.BytesIO()
    _write_npy(file, array)
    return file.getvalue()


def _write_npy(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
    file.write(plain.data)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
