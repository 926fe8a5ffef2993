"""The board at the other end of an SSH connection: messages through ``edgekit-runner attach``, files by SFTP."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.errors import LinkError
from edgekit.files import storage_errors
from edgekit.links.deadline import Deadline
from edgekit.links.progress import Moved, Progress, silent
from edgekit.links.ssh import runner, store
from edgekit.links.ssh.bringing import Bringing
from edgekit.links.ssh.connection import Connection, Finished
from edgekit.links.ssh.errors import ConnectionLost, HostStopped
from edgekit.links.ssh.sftp import READ, file_error
from edgekit.links.ssh.stream import Stream, lost
from edgekit.links.ssh.transfer import download

_SECONDS = 30.0  #: for what has no deadline of its own
_LAST_WORDS = 5.0
_STOPPED = 6  #: exit code of ``attach``, as are those of _EXITS
_EXITS = {
    3: ("no session host could be started", "see run/log in the board's edgekit folder"),
    4: ("the session host does not answer", "it may be stuck: `edgekit doctor DEVICE` shows more"),
}


class SshLink:
    """A connected board, its session host attached at the first message.

    Closing ends the connection; the host on the board, and what it trains, goes on.
    """

    def __init__(
        self, connection: Connection, options: Sequence[str] = (), progress: Progress = silent, keep: bool = False
    ) -> None:
        """
        Args:
            connection: to the board; the link closes it.
            options: of the runner, where ``attach`` must start one.
            progress: told while files move.
            keep: the connection stays open when the link is closed.
        """
        self.connection = connection
        self.name = connection.name
        self.progress = progress
        self._options = list(options)
        self._keep = keep
        self._stream: Stream | None = None
        self._heard = False
        self._bringing: Bringing | None = None
        self._closed = False

    def send(self, data: bytes, deadline: Deadline) -> None:
        stream = self._attached(deadline)
        try:
            stream.send(data, deadline)
        except ConnectionLost as error:
            raise self._ended(stream, error, deadline) from None

    def receive(self, deadline: Deadline) -> bytes:
        stream = self._attached(deadline)
        try:
            data = stream.receive(deadline)
        except ConnectionLost as error:
            raise self._ended(stream, error, deadline) from None
        self._heard = True
        return data

    def board_path(self, local: Path) -> str:
        self._check_open()
        deadline = Deadline.after(_SECONDS)
        local = local.absolute()
        folder = f"{self.connection.home(deadline)}/work/{local.parent.name}"
        self.connection.sftp(deadline).make_folders(folder, deadline)  # the runner makes files, not folders
        return f"{folder}/{local.name}"

    def user_path(self, path: str) -> str:
        self._check_open()
        folder = self.connection.login_folder(Deadline.after(_SECONDS))
        return posixpath.normpath(posixpath.join(folder, path.removeprefix("~/") if path != "~" else ""))

    def put_file(self, local: Path, deadline: Deadline) -> str:
        self._check_open()
        return store.put(self.connection, local, deadline, self.progress)

    def missing(self, local: Path, deadline: Deadline) -> int:
        """Bytes that ``put_file`` would send, as far as the board has not got them yet; those that it has count as used."""
        self._check_open()
        return store.missing(self.connection, local, deadline)

    def bring(self, data: bytes, remote: str, deadline: Deadline) -> Iterator[None]:
        self._check_open()
        if self._bringing is None:  # a channel of its own: answers to writes come while the other one is used
            self._bringing = Bringing(self.connection.open_sftp(deadline))
        return self._bringing.bring(data, remote, deadline)

    def usage(self) -> str:
        """What takes how much of the board's home, in the words of ``edgekit-runner usage``."""
        self._check_open()
        deadline = Deadline.after(_SECONDS)
        done = runner.run(self.connection, runner.current(self.connection.home(deadline)), ["usage"], deadline)
        if done.code != 0:
            hint = f"if the runner is of an older version: `edgekit flash {self.name}`"
            raise LinkError(f"{self.name}: the runner does not tell what it keeps: {done.words}", hint)
        return done.out

    def get_file(self, remote: str, local: Path, deadline: Deadline) -> None:
        """Fetch a file, whole or not at all; an unfinished one lies beside it, and the next try goes on there."""
        self._check_open()
        sftp = self.connection.sftp(deadline)
        handle = sftp.open(remote, READ, deadline)
        facts = sftp.fstat(handle, deadline)
        version = hashlib.sha256(f"{self.name} {remote} {facts.size} {facts.modified}".encode()).hexdigest()[:16]
        part = local.with_name(f".{local.name}.{version}.part")
        with storage_errors(f"cannot write {local}"):
            with part.open("ab") as file:
                start = file.tell()
                if start > facts.size:
                    start = 0
                    file.truncate(0)
                moved = lambda done, total: self.progress(Moved(local.name, done, total))  # noqa: E731
                download(sftp, handle, remote, facts.size, file, start, deadline, moved)
                file.flush()
                os.fsync(file.fileno())
            part.replace(local)
        sftp.close(handle, remote, deadline)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._stream.close()
        if not self._keep:
            self.connection.close()

    def _attached(self, deadline: Deadline) -> Stream:
        self._check_open()
        if self._stream is None:
            home = self.connection.home(deadline)
            self._stream = self.connection.start([runner.current(home), "attach", *self._options], deadline)
        return self._stream

    def _check_open(self) -> None:
        if self._closed:
            raise LinkError(f"{self.name}: the connection is closed", "connect again")

    def _ended(self, stream: Stream, error: ConnectionLost, deadline: Deadline) -> LinkError:
        """Why the messages ended: the connection, or what runs at its other end."""
        if not self.connection.alive or not stream.channel.status_event.wait(min(_LAST_WORDS, deadline.remaining())):
            return error
        done = Finished(stream.channel.exit_status, "", _words(stream))
        if done.code == _STOPPED:
            return HostStopped(
                f"{self.name}: the session host was stopped by a signal (SIGSTOP)", "try again: that lets it go on"
            )
        if done.code in _EXITS:
            if (fault := file_error(f"{self.name}: no session host could be started", done.words)) is not None:
                return fault
            what, hint = _EXITS[done.code]
            return self._advised(LinkError(f"{self.name}: {what}: {done.words}", hint.replace("DEVICE", self.name)), deadline)
        if not self._heard and done.code != 0:
            with contextlib.suppress(ConnectionLost):
                executable = runner.current(self.connection.home(deadline))
                return self._advised(runner.why_not_started(self.connection, executable, done, deadline), deadline)
        return lost(self.name, LinkError(f"the runner's session host closed it (exit code {done.code}): {done.words}"))

    def _advised(self, error: LinkError, deadline: Deadline) -> LinkError:
        """A runner that does not work may be a new one that `edgekit flash` could not check to the end."""
        with contextlib.suppress(LinkError):
            if runner.is_unconfirmed(self.connection, deadline):
                error.hint = f"the release is new and was never confirmed: {runner.confirm(self.name)}"
        return error


def _words(stream: Stream) -> str:
    stream.channel.settimeout(1.0)
    with contextlib.suppress(TimeoutError, OSError):
        return stream.channel.recv_stderr(4096).decode(errors="replace")
    return ""
