"""For tests: file systems of their own, small ones and ones that turn read-only, and what lies in a folder. They need root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def names(folder: Path | str) -> list[str]:
    """What lies in a folder, in order."""
    return sorted(path.name for path in Path(folder).iterdir())


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int, *options: str) -> Iterator[None]:
    """A file system in memory, of that size, at ``folder``."""
    _mount(folder, ["-t", "tmpfs", "-o", ",".join((f"size={kilobytes}k", *options)), "tmpfs"])
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(folder: Path, words: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


def remount(folder: Path, *options: str) -> None:
    """Change how a file system is mounted ("ro", "rw")."""
    subprocess.run(["mount", "-o", ",".join(("remount", *options)), str(folder)], check=True, capture_output=True)


class MemoryCard:
    """An ext4 file system at ``folder`` on a block device that can fail: a loop device over a file in memory."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._image = _memory_file(b"")
        os.ftruncate(self._image, megabytes << 20)
        _run("mkfs.ext4", "-q", _path_of(self._image))
        self.put_in()

    def put_in(self) -> None:
        """Mount it, as a board does that starts: checked before."""
        done = subprocess.run(["e2fsck", "-p", _path_of(self._image)], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout  # 1: faults were corrected
        _mount(self.folder, ["-t", "ext4", "-o", "loop,errors=remount-ro", _path_of(self._image)])

    def take_out(self) -> None:
        """Unmount it, as soon as those who use it have ended."""
        end = time.monotonic() + 10
        while subprocess.run(["umount", str(self.folder)], capture_output=True).returncode:
            assert time.monotonic() < end, "somebody uses it still"
            time.sleep(0.02)

    def find_fault(self) -> None:
        """The kernel finds a fault in the file system, which turns read-only under whoever has files open there."""
        device = _run("findmnt", "-no", "SOURCE", str(self.folder)).strip().rpartition("/")[2]
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def wear_out(self) -> None:
        """Writing fails from now on."""
        fcntl.fcntl(self._image, _F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)

    def copy(self) -> None:
        """What can still be read goes to a new card; in between this one must be out."""
        worn, self._image = self._image, _memory_file(Path(_path_of(self._image)).read_bytes())
        os.close(worn)

    def throw_away(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)
        os.close(self._image)


_F_ADD_SEALS, _F_SEAL_FUTURE_WRITE = 1033, 0x10  # <linux/fcntl.h>, <linux/memfd.h>


def _memory_file(content: bytes) -> int:
    file = os.memfd_create("card", os.MFD_ALLOW_SEALING)
    os.write(file, content)
    return file


def _path_of(file: int) -> str:
    return f"/proc/{os.getpid()}/fd/{file}"


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
