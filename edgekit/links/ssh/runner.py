"""The runner on the board: where it lies, and why it does not start."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgekit.errors import IntegrityError, LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh.connection import Connection, Finished
from edgekit.links.ssh.errors import NoExec, NoRunner, RemotePermission, WrongArchitecture
from edgekit.links.ssh.sftp import READ, Kind, string

#: Values of ``e_machine`` in an ELF file, and what ``uname -m`` says on such a processor.
_MACHINES = {
    62: ("x86_64", "amd64"),
    183: ("aarch64", "arm64"),
    40: ("armv6l", "armv7l", "armhf", "arm"),
    243: ("riscv64",),
    3: ("i686", "i386"),
}
_NOT_FOUND, _NOT_EXECUTED = 127, 126  #: exit codes of a POSIX shell
_BUSY_SECONDS = 10.0  #: for the board to end the upload of a link that was cut


def current(home: str) -> str:
    """The runner that is in use."""
    return f"{home}/current/edgekit-runner"


def confirm(name: str) -> str:
    """The advice where a release's first check was cut off."""
    return f"`edgekit flash {name}` checks it, and goes back to the release before where it does not"


def is_unconfirmed(connection: Connection, deadline: Deadline) -> bool:
    """Whether the first check of the runner that is in use was cut off."""
    home, sftp = connection.home(deadline), connection.sftp(deadline)
    release = sftp.readlink(f"{home}/unconfirmed", deadline)
    return release is not None and release == sftp.readlink(f"{home}/current", deadline)


def run(connection: Connection, executable: str, words: Sequence[str], deadline: Deadline) -> Finished:
    """Run ``edgekit-runner WORDS`` to its end.

    Raises:
        NoRunner, WrongArchitecture, NoExec, RemotePermission: it does not start.
    """
    given_up = time.monotonic() + min(_BUSY_SECONDS, deadline.remaining())
    while did_not_start(done := connection.run([executable, *words], deadline)):
        if not _is_open_for_writing(done) or time.monotonic() > given_up:
            raise why_not_started(connection, executable, done, deadline)
        time.sleep(0.1)
    return done


def _is_open_for_writing(done: Finished) -> bool:
    """Whether an upload has the file open, so that the kernel does not execute it: that of a cut link ends a little later."""
    return "Text file busy" in done.err


def did_not_start(done: Finished) -> bool:
    """Whether a command ended because the board's shell could not start it."""
    return done.code in (_NOT_FOUND, _NOT_EXECUTED) or (done.code == 2 and "yntax error" in done.err)


def check_digest(connection: Connection, path: str, wanted: str, found: str) -> None:
    """Raises: IntegrityError: the board has other bytes than were sent."""
    if found != wanted:
        raise IntegrityError(
            f"{connection.name}: {path} has the SHA-256 {found[:16]}…, what was sent has {wanted[:16]}…",
            "try again; if it comes back, the board's disk or memory may be failing",
        )


def why_not_started(connection: Connection, executable: str, done: Finished, deadline: Deadline) -> LinkError:
    """The error of a runner that the board's shell could not start."""
    sftp = connection.sftp(deadline)
    there = sftp.stat(executable, deadline)
    if there is None:
        return no_runner(connection, executable)
    if "ermission denied" in done.err:
        return _no_exec(connection, executable) if there.mode & 0o111 else _permission(connection, executable)
    machine = connection.run("uname -m", deadline).out.strip()
    wanted = _machine_of(connection, executable, deadline)
    if wanted is not None and machine not in wanted:
        return WrongArchitecture(
            f"{connection.name}: {executable} is for {wanted[0]}, the board is {machine}",
            f"`edgekit flash {connection.name}` brings the right one",
        )
    if _is_open_for_writing(done):
        why = f"{connection.name}: {executable} is open for writing: by another upload, or one whose link was cut just now"
        return LinkError(why, f"try again in a minute: `edgekit flash {connection.name}`")
    why = f"{connection.name}: {executable} does not start: {done.words}"
    return LinkError(why, f"`edgekit flash {connection.name}` renews it")


def no_runner(connection: Connection, executable: str) -> NoRunner:
    """The error of a board that was never flashed."""
    return NoRunner(
        f"{connection.name}: there is no runner on the board ({executable})", f"`edgekit flash {connection.name}` brings it"
    )


def _no_exec(connection: Connection, executable: str) -> NoExec:
    folder = executable.rpartition("/releases/")[0] or executable
    return NoExec(
        f"{connection.name}: the board may not run programs from {folder}: its file system is mounted noexec",
        "set EDGEKIT_HOME on the board to a folder of another file system (`findmnt -T DIR` shows how one is mounted)",
    )


def _permission(connection: Connection, executable: str) -> RemotePermission:
    return RemotePermission(
        f"{connection.name}: {connection.target.user} may not run {executable}",
        f"`edgekit flash {connection.name}` brings it anew",
    )


def _machine_of(connection: Connection, executable: str, deadline: Deadline) -> tuple[str, ...] | None:
    """The names of the processor that an ELF file is for; None where it is none."""
    sftp = connection.sftp(deadline)
    handle = sftp.open(executable, READ, deadline)
    head = sftp.ask(
        Kind.READ, string(handle) + (0).to_bytes(8, "big") + (20).to_bytes(4, "big"), executable, deadline, Kind.DATA
    ).body[4:]
    sftp.close(handle, executable, deadline)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return None
    return _MACHINES.get(int.from_bytes(head[18:20], "little"), ("another processor",))
