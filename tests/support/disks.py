"""For tests: file systems of their own, small ones and ones that turn read-only, and what lies in a folder. They need root."""

from __future__ import annotations

import contextlib
import subprocess
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
