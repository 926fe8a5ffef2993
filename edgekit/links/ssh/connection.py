"""One connection to a board: commands, files, and the folder where everything of edgekit lies there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import paramiko

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh.address import Target, resolve
from edgekit.links.ssh.connect import WINDOW, Connected, connect
from edgekit.links.ssh.errors import ConnectionLost, NoSftp
from edgekit.links.ssh.secrets import Ask, ask
from edgekit.links.ssh.sftp import Sftp
from edgekit.links.ssh.stream import STALL, Stream, lost

CONNECT_SECONDS = 30.0
_LOGIN = 'printf "<%s>" "$HOME"'
_HOME = 'printf "<%s>" "${EDGEKIT_HOME:-$HOME/.edgekit}"'  # the marks tell it from what a login shell prints


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit code (-1: by a signal), and what it said."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it said, for messages."""
        return (self.err.strip() or self.out.strip() or "no word")[-2000:]


class Connection:
    """An open connection; use it in a ``with`` statement. Every method raises LinkError."""

    def __init__(self, address: str | Target | Connected, deadline: Deadline | None = None, asking: Ask = ask) -> None:
        """Connect, or take over what is logged in already.

        Raises:
            InputError: the address or the SSH configuration cannot be read.
            LinkError: one class a fault (edgekit.links.ssh.errors).
        """
        if not isinstance(address, Connected):
            target = address if isinstance(address, Target) else resolve(address)
            address = connect(target, asking, deadline or Deadline.after(CONNECT_SECONDS))
        self._connected = address
        self.target = address.target
        self.name = self.target.address
        self._sftp: Sftp | None = None
        self._home: str | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return bool(self._connected.transport.is_active()) and not self._connected.socket.ended

    def home(self, deadline: Deadline) -> str:
        """The home folder's absolute path (docs/session-host.md)."""
        if self._home is None:
            self._home = self._folder(_HOME, deadline)
        return self._home

    def login_folder(self, deadline: Deadline) -> str:
        """The absolute path of the folder that a login begins in."""
        return self._folder(_LOGIN, deadline)

    def _folder(self, command: str, deadline: Deadline) -> str:
        said = self.run(command, deadline)
        path = said.out.rpartition("<")[2].partition(">")[0].rstrip("/")
        if said.code != 0 or not path.startswith("/"):
            raise LinkError(f"{self.name}: the board does not tell its home folder: {said.words}", "does `ssh HOST true` work?")
        return path

    def run(self, command: str | Sequence[str], deadline: Deadline) -> Finished:
        """Run a command (a line for the POSIX shell, or words) to its end."""
        stream = self.start(command, deadline)
        try:
            return self.finish(stream, _brief(command), deadline)
        finally:
            stream.close()

    def finish(self, stream: Stream, what: str, deadline: Deadline) -> Finished:
        """Await the end of a command, called ``what`` in errors."""
        out = bytearray()
        while data := stream.read(deadline):
            out += data
        if not stream.channel.status_event.wait(deadline.remaining()):
            raise deadline.expired(f"{self.name}: {what}")
        if not stream.channel.exit_status_ready() or (stream.channel.exit_status == -1 and not self.alive):
            raise lost(self.name)
        return Finished(stream.channel.exit_status, out.decode(errors="replace"), _stderr(stream.channel))

    def start(self, command: str | Sequence[str], deadline: Deadline, stall: float | None = None) -> Stream:
        """Start a command; its input and output, on which ``stall`` seconds of silence are a lost connection."""
        line = command if isinstance(command, str) else shlex.join(command)
        channel = self._open(deadline)
        try:
            channel.settimeout(max(deadline.remaining(), 0.001))
            channel.exec_command(f"exec sh -c {shlex.quote(line)}")
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._broken(error, deadline, "starting a command") from error
        return Stream(self.name, channel, self._connected.socket, stall)

    def sftp(self, deadline: Deadline) -> Sftp:
        """The file channel, opened when it is first asked for.

        Raises:
            NoSftp: the board's SSH server has none.
        """
        if self._sftp is None:
            self._sftp = self.open_sftp(deadline)
        return self._sftp

    def open_sftp(self, deadline: Deadline) -> Sftp:
        """Another file channel, for who keeps requests in flight while others ask.

        Raises: as ``sftp`` does.
        """
        channel = self._open(deadline)
        try:
            channel.settimeout(max(deadline.remaining(), 0.001))
            channel.invoke_subsystem("sftp")
            return Sftp(Stream(self.name, channel, self._connected.socket, STALL), deadline)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._without_sftp(error, deadline) from error
        except ConnectionLost as error:
            self._open(deadline).close()  # raises where it is the connection that is lost, not the SFTP server that ended
            raise self._without_sftp(error, deadline) from error

    def close(self) -> None:
        """End the connection; again and again is fine."""
        self._connected.close()

    def _open(self, deadline: Deadline) -> paramiko.Channel:
        try:
            self._connected.socket.end = deadline.end
            return self._connected.transport.open_session(window_size=WINDOW, timeout=max(deadline.remaining(), 0.001))
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._broken(error, deadline, "opening a channel") from error

    def _broken(self, error: Exception, deadline: Deadline, what: str) -> LinkError:
        if deadline.remaining() <= 0:
            return deadline.expired(f"{self.name}: {what}")
        if isinstance(error, paramiko.ChannelException):
            return LinkError(f"{self.name}: the SSH server refuses {what}: {error.text}", "its MaxSessions may be too small")
        if not self.alive:
            return lost(self.name, error)
        return LinkError(f"{self.name}: {what} failed: {error}", "may this user run commands there? `ssh HOST true` tells")

    def _without_sftp(self, error: Exception, deadline: Deadline) -> LinkError:
        if not self.alive or deadline.remaining() <= 0:
            return self._broken(error, deadline, "opening SFTP")
        return NoSftp(
            f"{self.name}: the board's SSH server offers no SFTP",
            "install OpenSSH's (`sudo apt install openssh-sftp-server`), and let sshd_config say `Subsystem sftp internal-sftp`",
        )


def _stderr(channel: paramiko.Channel) -> str:
    data = bytearray()
    channel.settimeout(1.0)
    try:
        while part := channel.recv_stderr(1 << 16):
            data += part
    except (TimeoutError, OSError):
        pass  # what has come is what there is
    return data.decode(errors="replace")


def _brief(command: str | Sequence[str]) -> str:
    words = command if isinstance(command, str) else " ".join(command)
    return words if len(words) <= 60 else f"{words[:57]}..."
