"""Initramfs archives: cpio in the "newc" format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

The same entries give the same bytes: sorted, owned by root, without times.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file of a root file system, owned by root.

    Attributes:
        path: relative to the root, without a leading slash.
        mode: type and permissions, as ``st_mode`` has them.
        data: a file's bytes; a symbolic link's target.
        device: major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | permissions, data)


def folder(path: str, permissions: int = 0o755) -> Entry:
    """A folder."""
    return Entry(path, stat.S_IFDIR | permissions)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """A device node."""
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def pack(entries: Iterable[Entry]) -> bytes:
    """The archive of ``entries``, in the order of their paths, with the folders above them. A later entry of a path wins.

    Archives may follow one another in a file: the kernel unpacks one over the other.
    """
    every: dict[str, Entry] = {}
    for entry in entries:
        every[entry.path] = entry
    for path in list(every):
        for above in PurePosixPath(path).parents[:-1]:  # the last one is the root itself
            every.setdefault(str(above), folder(str(above)))
    parts = [_record(number, every[path]) for number, path in enumerate(sorted(every), 1)]
    return b"".join(parts) + _record(0, Entry(_TRAILER, 0))


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, user, group, links, time, size, device (two), device node (two), name's size, checksum (unused)
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    return _padded(b"070701" + b"".join(b"%08x" % field for field in fields) + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
