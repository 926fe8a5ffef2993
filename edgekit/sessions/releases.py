"""The runners on a board: ``releases/<sha256>/edgekit-runner``, and the links ``current``, ``previous`` and ``unconfirmed``
(docs/session-host.md).

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
    """What is there: digests, those of the links among them (None: no link), and those whose runner is whole.

    ``unconfirmed`` is the release whose first check was not finished: while it is current too, nobody knows whether it works.
    """

    current: str | None
    previous: str | None
    unconfirmed: str | None
    whole: tuple[str, ...]
    unfinished: tuple[str, ...]

    @property
    def confirmed(self) -> bool:
        """Whether the current release has been checked to its end."""
        return self.current != self.unconfirmed

    def before(self, release: str) -> str | None:
        """What to go back to where ``release`` does not work: the latest other one that does, else the current one."""
        good = self.current if self.confirmed else self.previous
        return self.current if good == release else good


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
        current, previous, unconfirmed = (self._linked(name, deadline) for name in ("current", "previous", "unconfirmed"))
        return Releases(current, previous, unconfirmed, whole, unfinished)

    def size(self, release: str, deadline: Deadline) -> int | None:
        """Bytes of a whole runner; None where it is not there."""
        there = self._connection.sftp(deadline).stat(self.executable(release), deadline)
        return there.size if there else None

    def link(self, name: str, release: str | None, deadline: Deadline) -> None:
        """Make a link lead to a release, in one step; None removes it."""
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
            if name.startswith((".current.", ".previous.", ".unconfirmed.")):
                sftp.remove(f"{self.home}/{name}", deadline)

    def _linked(self, name: str, deadline: Deadline) -> str | None:
        try:
            target = self._connection.sftp(deadline).readlink(f"{self.home}/{name}", deadline)
        except RemoteFileError:
            return None  # something else than a link, which `link` replaces
        return target.rstrip("/").rpartition("/")[2] if target else None
