"""Brings the runner to a board over SSH. Whatever happens on the way, the board works with the old release or the new one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import BusyError, DeviceError, EdgekitError, IntegrityError, LinkError
from edgekit.files import storage_errors
from edgekit.links.deadline import Deadline
from edgekit.links.progress import Moved
from edgekit.links.ssh import Connection, SshLink, runner
from edgekit.links.ssh.errors import ConnectionLost, RemoteMissing
from edgekit.links.ssh.sftp import READ, disk_full
from edgekit.links.ssh.transfer import download, upload
from edgekit.protocol import PROTOCOL, Client
from edgekit.protocol.messages import Info
from edgekit.sessions.flash_events import Done, Event, Started
from edgekit.sessions.flash_plan import Health, Plan, Prune, Reset, Step, Switch, Trial, Upload, Verify
from edgekit.sessions.releases import RUNNER, ReleaseFolder

UPLOAD_SECONDS = 600.0
STEP_SECONDS = 60.0
CHECK_SECONDS = 120.0  #: a small board computes for a while
_ATTEMPTS = 3  #: somebody else's `attach` may start a host of the old release just before the switch


class FlashFailed(DeviceError):
    """The new release does not work on the board, which is back on the old one."""


@dataclass(frozen=True)
class Flashed:
    """What the board has now; ``info`` is what its runner says of itself."""

    address: str
    release: str
    previous: str | None
    info: Info


def execute(connection: Connection, plan: Plan, *, force: bool = False, listen: Callable[[Event], None] | None = None) -> Flashed:
    """Carry out a plan, step by step. Cut at any point, it can be begun again with a new plan.

    Args:
        force: end a session that runs on the board.
        listen: told of every step and of the bytes that move.

    Raises:
        BusyError: a session runs; nothing was switched.
        FlashFailed: the new release did not answer; the old one is back.
        IntegrityError: other bytes arrived than were sent.
        LinkError: the board is gone, full, or refuses (edgekit.links.ssh.errors).
    """
    work = _Work(connection, plan, force, listen or (lambda _: None))
    for number, step in enumerate(plan.steps, 1):
        work.listen(Started(step, number, len(plan.steps)))
        work.listen(Done(step, work.do(step)))
    assert work.info is not None
    before = plan.found.before(plan.release)
    previous = plan.found.previous if before in (None, plan.release) else before
    return Flashed(plan.address, plan.release, previous, work.info)


class _Work:
    """One method a kind of step; each returns what it found."""

    def __init__(self, connection: Connection, plan: Plan, force: bool, listen: Callable[[Event], None]) -> None:
        self.connection = connection
        self.plan = plan
        self.force = force
        self.listen = listen
        self.info: Info | None = None
        self.folder = ReleaseFolder(connection, Deadline.after(STEP_SECONDS))

    def do(self, step: Step) -> str:
        match step:
            case Upload():
                return self._upload(step)
            case Verify():
                return self._verify(step)
            case Trial():
                return self._try(step)
            case Reset():
                return self._reset(step.release, self.force)
            case Switch():
                return self._switch(step)
            case Health():
                return self._health(step)
            case Prune():
                return self._prune(step)

    def _upload(self, step: Upload) -> str:
        deadline = Deadline.after(UPLOAD_SECONDS)
        executable = self.folder.executable(step.release)
        self.connection.sftp(deadline).make_folders(executable.rpartition("/")[0], deadline)
        start = _send(self.connection, step.local, f"{executable}.part", deadline, self.listen)
        return f"{step.bytes - start} bytes" + (f", {start} were there" if start else "")

    def _verify(self, step: Verify) -> str:
        """The unfinished file gets its name only when it is whole."""
        deadline = Deadline.after(UPLOAD_SECONDS)
        sftp = self.connection.sftp(deadline)
        executable = self.folder.executable(step.release)
        uploaded = any(isinstance(other, Upload) for other in self.plan.steps)
        path = f"{executable}.part" if uploaded else executable
        try:
            found = _digest(self.connection, path, deadline)
        except RemoteMissing:
            if not uploaded or self.folder.size(step.release, deadline) is None:
                raise
            path = executable  # another host uploaded the same and was quicker
            found = _digest(self.connection, path, deadline)
        try:
            runner.check_digest(self.connection, path, step.release, found)
        except IntegrityError:
            sftp.remove(path, deadline)  # the next try sends it anew
            raise
        sftp.chmod(path, 0o700, deadline)  # of one that was there, too: it then counts as used
        if path != executable:
            sftp.rename(path, executable, deadline)
        return "the same"

    def _try(self, step: Trial) -> str:
        executable = self.folder.executable(step.release)
        deadline = Deadline.after(CHECK_SECONDS)
        version = runner.run(self.connection, executable, ["version"], deadline)
        if version.code != 0 or not version.out.startswith(RUNNER):
            raise DeviceError(f"{self.connection.name}: the runner does not start: {version.words}", "nothing was switched")
        check = runner.run(self.connection, executable, ["check"], deadline)
        if check.code != 0:
            raise DeviceError(f"{self.connection.name}: the runner's self-test fails: {check.words}", "nothing was switched")
        return version.out.splitlines()[0]

    def _reset(self, release: str, force: bool) -> str:
        """Ask a host of another release, where one runs, to end."""
        deadline = Deadline.after(STEP_SECONDS)
        sftp = self.connection.sftp(deadline)
        if sftp.lstat(f"{self.folder.home}/run/socket", deadline) is None:
            return "none runs"
        if sftp.stat(runner.current(self.folder.home), deadline) is None:
            return "none can be asked: there is no current release"
        try:
            with self._attached() as client:
                info = client.info()
                if _is_of(info, release):
                    return "the one that runs is of this release"
                self._end(client, force)
        except LinkError:
            if self.plan.found.confirmed or not self.connection.alive:
                raise
            return "none answers, and the current release was never confirmed"
        return f"process {info.pid} ended"

    def _end(self, client: Client, force: bool) -> None:
        try:
            client.reset(force)
        except BusyError as error:
            raise BusyError(
                f"{self.connection.name}: a session runs on the board, and flashing would end it",
                f"wait for its end, or stop it: `edgekit flash {self.connection.name} --force` does, with its checkpoint",
            ) from error
        with contextlib.suppress(ConnectionLost):  # the host goes when it has answered, and with it the bridge
            client.link.receive(Deadline.after(STEP_SECONDS))

    def _switch(self, step: Switch) -> str:
        deadline = Deadline.after(STEP_SECONDS)
        links = [("previous", step.old), ("current", step.new)] if step.old else [("current", step.new)]
        self.folder.link("unconfirmed", step.new, deadline)
        for name, release in reversed(links) if step.back else links:
            self.folder.link(name, release, deadline)
        return ""

    def _health(self, step: Health) -> str:
        try:
            self.info = self._talk(step.release)
        except (EdgekitError, TimeoutError) as error:
            if not self.connection.alive:
                raise _unconfirmed(self.connection.name, error) from error
            if step.old == step.release:
                raise
            self._switch_back(step)
            now = f"back on {step.old[:12]}…" if step.old else "without a runner, as before"
            why = getattr(error, "message", error)
            raise FlashFailed(
                f"{self.connection.name}: the new release does not answer ({why}); the board is {now}",
                "run/log in the board's edgekit folder may tell why",
            ) from error
        self.folder.link("unconfirmed", None, Deadline.after(STEP_SECONDS))
        return f"{self.info.version}, {self.info.architecture}, {self.info.isa}, process {self.info.pid}"

    def _talk(self, release: str) -> Info:
        for _ in range(_ATTEMPTS):
            with self._attached() as client:
                info = client.info()
                if info.protocol != PROTOCOL:
                    raise LinkError(f"the runner speaks protocol {info.protocol}, edgekit {PROTOCOL}")
                if _is_of(info, release):
                    return info
                self._end(client, self.force)
        raise LinkError("hosts of another release are started again and again", "is another edgekit at work on this board?")

    def _switch_back(self, step: Health) -> None:
        with contextlib.suppress(EdgekitError), self._attached() as client:
            client.reset(True)  # or the old release would talk to the new one's host
        deadline = Deadline.after(STEP_SECONDS)
        self.folder.link("current", step.old, deadline)
        if step.previous is not None:
            self.folder.link("previous", step.previous, deadline)
        self.folder.link("unconfirmed", None, deadline)

    def _prune(self, step: Prune) -> str:
        deadline = Deadline.after(STEP_SECONDS)
        for release in step.releases:
            self.folder.remove(release, deadline)
        self.folder.sweep(deadline)
        return ""

    @contextlib.contextmanager
    def _attached(self) -> Iterator[Client]:
        link = SshLink(self.connection, keep=True)
        try:
            yield Client(link)
        finally:
            link.close()


def _unconfirmed(name: str, error: Exception) -> EdgekitError:
    """The error of a check that the connection did not outlive: a new plan goes on from here."""
    why = getattr(error, "message", error)
    return ConnectionLost(f"{why}; the new release is current, and nobody knows yet whether it works", runner.confirm(name))


def _is_of(info: Info, release: str) -> bool:
    """Whether a host runs a release; one that does not tell its executable counts as such."""
    return info.executable is None or f"/releases/{release}/" in info.executable


def _send(connection: Connection, local: Path, part: str, deadline: Deadline, listen: Callable[[Event], None]) -> int:
    """Upload by SFTP, since there may be no runner yet, into an unfinished file, from where it ends; that offset.

    Raises:
        RemoteDiskFull: there is no room, which is seen before the first byte goes.
    """
    sftp = connection.sftp(deadline)
    size = local.stat().st_size
    there = sftp.stat(part, deadline)
    wanted = size - min(size, there.size if there else 0)
    disk = sftp.disk(part.rpartition("/")[0], deadline)
    if disk is not None and disk.free < wanted:
        raise disk_full(f"{connection.name}: {local.name} needs {wanted / 2**20:.1f} MiB in {part.rpartition('/')[0]}", disk.free)
    with storage_errors(f"cannot read {local}"):
        file = local.open("rb", buffering=0)
    with file:
        return upload(sftp, file, size, part, deadline, lambda done, total: listen(Moved(local.name, done, total)))


def _digest(connection: Connection, path: str, deadline: Deadline) -> str:
    """A file's SHA-256, computed on the board by ``sha256sum``; where there is none, its bytes are read back.

    Raises:
        RemoteMissing: there is no such file.
    """
    sftp = connection.sftp(deadline)
    handle = sftp.open(path, READ, deadline)
    size = sftp.fstat(handle, deadline).size
    try:
        done = connection.run(["sha256sum", path], deadline)
        if done.code == 0 and len(done.out.split()[0].lstrip("\\")) == 64:
            return done.out.split()[0].lstrip("\\")
        back = _Hash()
        download(sftp, handle, path, size, back, 0, deadline, lambda *_: None)
        return back.digest.hexdigest()
    finally:
        if connection.alive:
            sftp.close(handle, path, deadline)


class _Hash:
    """A file that keeps only its digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)
