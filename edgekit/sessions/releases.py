"""The runners on a board: ``releases/<sha256>/edgekit-runner``, the links ``current`` and ``previous`` (docs/session-host.md).

Every change is one atomic operation on the board, so that whatever cuts a sequence of them, ``current`` leads to a whole runner.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from edgekit.links.deadline import Deadline
from edgekit.links.ssh import Connection
from edgekit.links.ssh.errors import RemoteFileError

RUNNER = "edgekit-runner"
_STALE = 3600  #: seconds after which an unfinished upload counts as given up


@dataclass(frozen=True)
class Releases:
    """What is there: digests, those of the two links among them (None: no link), and those whose runner is whole."""

    current: str | None
    previous: str | None
    whole: tuple[str, ...]
    unfinished: tuple[str, ...]


class ReleaseFolder:
    """The releases of the board at the other end. Every method raises LinkError."""

    def __init__(self, connection: Connection, deadline: Deadline) -> None:
        self._connection = connection
        self.home = connection.home(deadline)

    def executable(self, release: str) -> str:
        return f"{self.home}/releases/{release}/{RUNNER}"

    def look(self, deadline: Deadline) -> Releases:
        sftp = self._connection.sftp(deadline)
        names = sftp.names(f"{self.home}/releases", deadline)
        whole = tuple(name for name in names if sftp.stat(self.executable(name), deadline))
        unfinished = tuple(name for name in names if name not in whole)
        return Releases(self._linked("current", deadline), self._linked("previous", deadline), whole, unfinished)

    def size(self, release: str, deadline: Deadline) -> int | None:
        """Bytes of a whole runner; None where it is not there."""
        there = self._connection.sftp(deadline).stat(self.executable(release), deadline)
        return there.size if there else None

    def link(self, name: str, release: str | None, deadline: Deadline) -> None:
        """Make ``current`` or ``previous`` lead to a release, in one step; None removes the link."""
        sftp = self._connection.sftp(deadline)
        if release is None:
            sftp.remove(f"{self.home}/{name}", deadline)
            return
        made = f"{self.home}/.{name}.{secrets.token_hex(4)}"
        sftp.symlink(made, f"releases/{release}", deadline)
        sftp.rename(made, f"{self.home}/{name}", deadline)

    def remove(self, release: str, deadline: Deadline) -> None:
        """Remove a release that neither link leads to. An upload that is under way stays."""
        sftp = self._connection.sftp(deadline)
        folder = f"{self.home}/releases/{release}"
        part = sftp.stat(f"{folder}/{RUNNER}.part", deadline)
        link = sftp.lstat(f"{self.home}/current", deadline)
        if part is not None and link is not None and part.modified > link.modified - _STALE:
            return
        for name in sftp.names(folder, deadline):
            sftp.remove(f"{folder}/{name}", deadline)
        sftp.rmdir(folder, deadline)

    def sweep(self, deadline: Deadline) -> None:
        """Remove links that an interrupted switch left."""
        sftp = self._connection.sftp(deadline)
        for name in sftp.names(self.home, deadline):
            if name.startswith((".current.", ".previous.")):
                sftp.remove(f"{self.home}/{name}", deadline)

    def _linked(self, name: str, deadline: Deadline) -> str | None:
        try:
            target = self._connection.sftp(deadline).readlink(f"{self.home}/{name}", deadline)
        except RemoteFileError:
            return None  # something else than a link, which `link` replaces
        return target.rstrip("/").rpartition("/")[2] if target else None
