"""SFTP version 3 as OpenSSH speaks it, over a channel: one method a request, and requests in flight for whole files.

paramiko's own client knows no deadline, downloads at a third of the speed, and has neither ``fsync`` nor ``statvfs``, which
tells a full disk from other failures.
Format: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for its extensions.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh.errors import RemoteDiskFull, RemoteFileError, RemoteMissing, RemotePermission, RemoteReadOnly
from edgekit.links.ssh.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 3
_MAX_PACKET = 1 << 20  #: bytes; a longer answer is noise
_ST_RDONLY = 1


class Kind(IntEnum):
    """Packet types."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    STAT = 17
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Code(IntEnum):
    """Numbers of a STATUS."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4


READ, WRITE, CREATE, TRUNCATE, EXCLUSIVE = 0x1, 0x2, 0x8, 0x10, 0x20  #: flags of ``open``


@dataclass(frozen=True)
class Attributes:
    """Of a file: bytes, mode with its type, modification time in seconds of the board's clock."""

    size: int
    mode: int
    modified: int

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True)
class Disk:
    """A file system: bytes free for the user, and whether it is mounted read-only."""

    free: int
    read_only: bool


@dataclass(frozen=True)
class Reply:
    """One answer's type and what follows the request's number."""

    number: int
    kind: int
    body: bytes

    @property
    def code(self) -> int:
        """A STATUS's number."""
        return int.from_bytes(self.body[:4], "big")


class Sftp:
    """One SFTP channel. Every method raises LinkError; RemoteFileError and its kinds where the board refuses."""

    def __init__(self, stream: Stream, deadline: Deadline) -> None:
        self.stream = stream
        self.name = stream.name
        self._buffer = bytearray()
        self._number = 0
        stream.send(struct.pack(">IBI", 5, Kind.INIT, VERSION), deadline)
        kind, body = self._packet(deadline)
        if kind != Kind.VERSION:
            raise LinkError(f"{self.name}: the SFTP server begins with packet type {kind}")
        self._extensions = set(_strings(body[4:])[::2])

    # One request, one answer

    def stat(self, path: str, deadline: Deadline) -> Attributes | None:
        """None where there is no such file; follows links."""
        return self._attributes(Kind.STAT, path, deadline)

    def lstat(self, path: str, deadline: Deadline) -> Attributes | None:
        return self._attributes(Kind.LSTAT, path, deadline)

    def fstat(self, handle: bytes, deadline: Deadline) -> Attributes:
        return _parse_attributes(self.ask(Kind.FSTAT, string(handle), "an open file", deadline, Kind.ATTRS).body)[0]

    def mkdir(self, path: str, mode: int, deadline: Deadline) -> None:
        """Make a folder; it may be there already."""
        try:
            self.ask(Kind.MKDIR, string(path) + struct.pack(">II", 0x4, mode), path, deadline)
        except RemoteFileError:
            there = self.stat(path, deadline)
            if there is None or not there.is_folder:
                raise

    def make_folders(self, path: str, deadline: Deadline) -> None:
        """``mkdir -p`` with mode 0700 for what is new."""
        there = self.stat(path, deadline)
        if there is not None and there.is_folder:
            return
        parent = path.rsplit("/", 1)[0]
        if parent not in ("", path):
            self.make_folders(parent, deadline)
        self.mkdir(path, 0o700, deadline)

    def rmdir(self, path: str, deadline: Deadline) -> None:
        self.ask(Kind.RMDIR, string(path), path, deadline)

    def remove(self, path: str, deadline: Deadline) -> None:
        """Remove a file; it may be gone already."""
        try:
            self.ask(Kind.REMOVE, string(path), path, deadline)
        except RemoteMissing:
            return

    def chmod(self, path: str, mode: int, deadline: Deadline) -> None:
        self.ask(Kind.SETSTAT, string(path) + struct.pack(">II", 0x4, mode), path, deadline)

    def symlink(self, link: str, target: str, deadline: Deadline) -> None:
        self.ask(Kind.SYMLINK, string(target) + string(link), link, deadline)  # OpenSSH's order, not the draft's

    def readlink(self, path: str, deadline: Deadline) -> str | None:
        """None where there is no such link."""
        try:
            body = self.ask(Kind.READLINK, string(path), path, deadline, Kind.NAME).body
        except RemoteMissing:
            return None
        return _strings(body[4:])[0].decode()

    def rename(self, old: str, new: str, deadline: Deadline) -> None:
        """Rename, atomically in the place of what is there."""
        self._extended("posix-rename@openssh.com", string(old) + string(new), new, deadline)

    def sync(self, handle: bytes, path: str, deadline: Deadline) -> None:
        """Force a file to the disk, where the server can."""
        if b"fsync@openssh.com" in self._extensions:
            self._extended("fsync@openssh.com", string(handle), path, deadline)

    def disk(self, path: str, deadline: Deadline) -> Disk | None:
        """The file system that ``path`` lies on; None where the server cannot tell."""
        if b"statvfs@openssh.com" not in self._extensions:
            return None
        payload = string("statvfs@openssh.com") + string(path)
        reply = self._exchange(Kind.EXTENDED, payload, deadline)
        if reply.kind != Kind.EXTENDED_REPLY or len(reply.body) < 88:
            return None
        _, fragment, _, _, available, _, _, _, _, flags, _ = struct.unpack(">11Q", reply.body[:88])
        return Disk(fragment * available, bool(flags & _ST_RDONLY))

    def open(self, path: str, flags: int, deadline: Deadline, mode: int = 0o600) -> bytes:
        """A handle, for ``close`` in the end."""
        payload = string(path) + struct.pack(">III", flags, 0x4 if flags & CREATE else 0, mode)
        payload = payload if flags & CREATE else payload[:-4]
        body = self.ask(Kind.OPEN, payload, path, deadline, Kind.HANDLE).body
        return body[4:]

    def close(self, handle: bytes, path: str, deadline: Deadline) -> None:
        self.ask(Kind.CLOSE, string(handle), path, deadline)

    def names(self, folder: str, deadline: Deadline) -> list[str]:
        """What lies in a folder; empty where there is no such folder."""
        try:
            handle = self.ask(Kind.OPENDIR, string(folder), folder, deadline, Kind.HANDLE).body[4:]
        except RemoteMissing:
            return []
        found: list[str] = []
        while (reply := self._exchange(Kind.READDIR, string(handle), deadline)).kind == Kind.NAME:
            found += _listing(reply.body)
        self.close(handle, folder, deadline)
        if reply.code != Code.EOF:
            raise self.fault(reply, folder, deadline)
        return sorted(name for name in found if name not in (".", ".."))

    # Many in flight

    def submit(self, kind: Kind, payload: bytes, deadline: Deadline, data: bytes | memoryview = b"") -> int:
        """Send a request without waiting; its number. ``data`` follows the payload, uncopied where it is long."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        head = struct.pack(">IBI", 5 + len(payload) + len(data), kind, self._number) + payload
        self.stream.send(b"".join((head, data)), deadline)
        return self._number

    def replies(self, deadline: Deadline) -> Iterator[Reply]:
        """The answers that have come, at least one."""
        yield self._reply(deadline)
        while self._whole():
            yield self._reply(deadline)

    # Below

    def ask(self, kind: Kind, payload: bytes, path: str, deadline: Deadline, answer: Kind = Kind.STATUS) -> Reply:
        """One exchange whose answer must be of a kind, and for a STATUS that it went well."""
        reply = self._exchange(kind, payload, deadline)
        if reply.kind != answer or (answer == Kind.STATUS and reply.code != Code.OK):
            raise self.fault(reply, path, deadline)
        return reply

    def fault(self, reply: Reply, path: str, deadline: Deadline, wanted: int = 1) -> LinkError:
        """The error that an answer stands for; ``wanted``: bytes that were to be written."""
        if reply.kind != Kind.STATUS:
            return LinkError(f"{self.name}: the SFTP server's answer about {path} is of the wrong type {reply.kind}")
        what = f"{self.name}: {path}"
        if reply.code in (Code.NO_SUCH_FILE, Code.EOF):
            return RemoteMissing(f"{what}: no such file on the board")
        disk = self._disk_above(path, deadline)
        if disk is not None and disk.read_only:
            return RemoteReadOnly(f"{what}: the file system is mounted read-only", _ELSEWHERE)
        if reply.code == Code.PERMISSION_DENIED:
            return RemotePermission(f"{what}: permission denied on the board", f"log in as the user it belongs to; {_ELSEWHERE}")
        if disk is not None and disk.free < max(wanted, 1):
            return disk_full(what, disk.free)
        text = _strings(reply.body[4:])[0].decode(errors="replace") if len(reply.body) > 4 else ""
        return RemoteFileError(f"{what}: {text or 'the board refused'} (SFTP status {reply.code})", _UNSOUND)

    def _disk_above(self, path: str, deadline: Deadline) -> Disk | None:
        while path.count("/") > 0 and path != "/":
            path = path.rsplit("/", 1)[0] or "/"
            if disk := self.disk(path, deadline):
                return disk
        return None

    def _attributes(self, kind: Kind, path: str, deadline: Deadline) -> Attributes | None:
        try:
            return _parse_attributes(self.ask(kind, string(path), path, deadline, Kind.ATTRS).body)[0]
        except RemoteMissing:
            return None

    def _extended(self, name: str, payload: bytes, path: str, deadline: Deadline) -> None:
        self.ask(Kind.EXTENDED, string(name) + payload, path, deadline)

    def _exchange(self, kind: Kind, payload: bytes, deadline: Deadline) -> Reply:
        number = self.submit(kind, payload, deadline)
        while (reply := self._reply(deadline)).number != number:
            continue  # the answer to a request that was given up on
        return reply

    def _reply(self, deadline: Deadline) -> Reply:
        kind, body = self._packet(deadline)
        return Reply(int.from_bytes(body[:4], "big"), kind, body[4:])

    def _whole(self) -> bool:
        return len(self._buffer) >= 4 and len(self._buffer) >= 4 + int.from_bytes(self._buffer[:4], "big")

    def _packet(self, deadline: Deadline) -> tuple[int, bytes]:
        while not self._whole():
            if len(self._buffer) >= 4 and not 0 < int.from_bytes(self._buffer[:4], "big") <= _MAX_PACKET:
                raise LinkError(
                    f"{self.name}: the SFTP server sends something else: {bytes(self._buffer[:32])!r}",
                    "does the login shell on the board print something? It must be silent where it is not interactive",
                )
            self._buffer += self.stream.receive(deadline)
        end = 4 + int.from_bytes(self._buffer[:4], "big")
        kind, body = self._buffer[4], bytes(memoryview(self._buffer)[5:end])
        del self._buffer[:end]
        return kind, body


_ROOM = (
    "`edgekit clean DEVICE` frees what is not needed; or free some space on the board, "
    "or set EDGEKIT_HOME there to a folder of another disk"
)
_UNSOUND = "does its disk fail, or did the file system turn read-only after a fault? The board's kernel log (`dmesg`) tells"
_ELSEWHERE = "or set EDGEKIT_HOME on the board to a folder that it may write to"


def disk_full(what: str, free: int) -> RemoteDiskFull:
    """The error of a full disk, with what is left."""
    return RemoteDiskFull(
        f"{what}: the board's disk is full ({free / 2**20:.1f} MiB left)",
        _ROOM,
    )


def file_error(what: str, words: str) -> RemoteFileError | None:
    """The error of a home folder that a program on the board found full or closed, by the kernel's words; None: neither."""
    last = words.splitlines()[-1] if words else ""
    if "No space left on device" in words:
        return RemoteDiskFull(f"{what}: {last}", _ROOM)
    if "Read-only file system" in words:
        return RemoteReadOnly(f"{what}: {last}", _ELSEWHERE)
    if "Permission denied" in words:
        return RemotePermission(f"{what}: {last}", f"log in as the user it belongs to; {_ELSEWHERE}")
    return None


def string(value: str | bytes) -> bytes:
    """A length and the bytes."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes) -> list[bytes]:
    found = []
    while len(data) >= 4:
        length = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def _parse_attributes(data: bytes) -> tuple[Attributes, bytes]:
    """The attributes that ``data`` begins with, and the rest."""
    flags, data = int.from_bytes(data[:4], "big"), data[4:]
    size = mode = modified = 0
    if flags & 0x1:
        size, data = int.from_bytes(data[:8], "big"), data[8:]
    if flags & 0x2:
        data = data[8:]  # owner and group
    if flags & 0x4:
        mode, data = int.from_bytes(data[:4], "big"), data[4:]
    if flags & 0x8:
        modified, data = int.from_bytes(data[4:8], "big"), data[8:]
    if flags & 0x80000000:
        count, data = int.from_bytes(data[:4], "big"), data[4:]
        for _ in range(2 * count):
            data = data[4 + int.from_bytes(data[:4], "big") :]
    return Attributes(size, mode, modified), data


def _listing(body: bytes) -> list[str]:
    names, data = [], body[4:]
    for _ in range(int.from_bytes(body[:4], "big")):
        length = int.from_bytes(data[:4], "big")
        names.append(data[4 : 4 + length].decode(errors="surrogateescape"))
        data = data[4 + length :]
        data = data[4 + int.from_bytes(data[:4], "big") :]  # the line of `ls -l`
        _, data = _parse_attributes(data)
    return names
