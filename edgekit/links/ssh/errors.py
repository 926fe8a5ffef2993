"""What can go wrong on the way to a board by SSH: one class a fault, each with its own advice.

No message holds a password, a passphrase or a key; a host key appears only as its fingerprint.
"""

from __future__ import annotations

from edgekit.errors import BoardFull, LinkError, LinkLost, StorageError


class NameNotResolved(LinkLost):
    """No address belongs to the host's name."""


class Unreachable(LinkLost):
    """No route leads to the host, or nothing comes back from it."""


class Refused(LinkLost):
    """The host is there and nothing listens at the port."""


class NotSsh(LinkError):
    """Something listens at the port that is no SSH server."""


class HostKeyError(LinkError):
    """Who answers has not been shown to be the board."""

    exit_code = 10


class UnknownHostKey(HostKeyError):
    """The board was never seen before."""


class ChangedHostKey(HostKeyError):
    """The board was seen before, with another key."""


class AuthenticationFailed(LinkError):
    """The board does not let us in."""

    exit_code = 11


class ConnectionLost(LinkLost):
    """The connection broke, or nothing moved on it any more. What was uploaded so far stays, and the next try goes on there."""


class HostStopped(LinkLost):
    """The session host on the board was stopped by a signal. The next connection lets it go on."""


class NoSftp(LinkError):
    """The board's SSH server has no SFTP."""


class NoRunner(LinkError):
    """There is no edgekit runner on the board."""


class WrongArchitecture(LinkError):
    """The runner on the board is for another processor, or there is none for this processor."""


class RemoteFileError(LinkError, StorageError):
    """A file or folder on the board cannot be read or written."""

    exit_code = StorageError.exit_code


class RemoteMissing(RemoteFileError):
    """There is no such file on the board."""


class RemoteDiskFull(RemoteFileError, BoardFull):
    """The board's disk, or the user's quota, is full."""


class RemotePermission(RemoteFileError):
    """The user may not do that on the board."""


class RemoteReadOnly(RemoteFileError):
    """The file system on the board is mounted read-only."""


class NoExec(RemoteFileError):
    """The file system on the board is mounted so that nothing on it can be run."""
