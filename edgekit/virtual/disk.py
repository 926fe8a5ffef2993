"""A board's disk: the file system of /home, which outlives QEMU."""

from __future__ import annotations

from pathlib import Path

from edgekit.files import storage_errors
from edgekit.virtual.tools import run, tool


def make_disk(path: Path, size: int, contents: Path | None = None) -> None:
    """A file of ``size`` bytes with an ext4 file system; it takes room only as it is filled. One that is there is kept.

    It is empty, or has the files of the folder ``contents``.

    Raises:
        VirtualBoardError: mkfs.ext4 is missing or fails.
        StorageError: the file cannot be made.
    """
    if path.exists():
        return
    unfinished = path.with_name(f".{path.name}.tmp")
    with storage_errors(f"cannot make the disk {path}"):
        with unfinished.open("wb") as file:
            file.truncate(size)
        sparse = ("-E", "lazy_itable_init=1,lazy_journal_init=1")  # all of the file reads as zero already
        filled = () if contents is None else ("-d", str(contents))
        command = (tool("mkfs.ext4"), "-q", "-F", "-m", "0", "-L", "home", *sparse, *filled, str(unfinished))
        run(f"making the disk {path}", command)
        unfinished.replace(path)
