"""Checks of the whole way to a board: over one connection, each in bounded time."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

from edgekit.devices import full_address
from edgekit.doctor.check import Check, NotNow
from edgekit.doctor.clock import check_clock, read_clocks
from edgekit.doctor.line import LineWay
from edgekit.doctor.machine import CHECKS
from edgekit.doctor.runner import activity, echo, train
from edgekit.errors import DeviceError, LinkError, LinkLost
from edgekit.links import Deadline, split_address
from edgekit.links.ssh import Connection, SshLink, known_hosts, runner
from edgekit.links.ssh.address import Target, resolve
from edgekit.links.ssh.connect import Connected, admit, greet
from edgekit.links.ssh.errors import NameNotResolved, RemoteDiskFull
from edgekit.links.ssh.secrets import Ask, ask
from edgekit.links.ssh.sftp import CREATE, WRITE
from edgekit.protocol import PROTOCOL, Client
from edgekit.protocol.messages import Info
from edgekit.sessions.flash_plan import Facts, probe, target_of
from edgekit.sessions.releases import ReleaseFolder

REACH_SECONDS = 20.0  #: from the name to the login
_SECONDS = 20.0  #: for each further check but the training
_ROOM = 64 << 20  #: bytes of disk and of memory that a small training finds comfortable
_MEMORY = """sed -n 's/^MemTotal: */total /p; s/^MemAvailable: */available /p' /proc/meminfo"""


@contextlib.contextmanager
def board_checks(address: str, asking: Ask = ask) -> Iterator[tuple[Check, ...]]:
    """The checks for the device at ``address``, or of that name; what they opened is closed at the end of the ``with``."""
    if address == "local":
        yield (Check("address", lambda: "this machine"), *CHECKS)
        return
    serial = "://" in (full := full_address(address)) and split_address(full)[0] in ("serial", "socket")
    way = LineWay(address) if serial else _Way(address, asking)
    try:
        yield way.checks()
    finally:
        way.close()


class _Way:
    """The way to a board over SSH, as far as it is open: one method a check, each builds on those that it needs."""

    def __init__(self, address: str, asking: Ask) -> None:
        self._given = address
        self._ask = asking
        self._reach = Deadline.after(REACH_SECONDS)
        self._target: Target | None = None
        self._connected: Connected | None = None
        self._connection: Connection | None = None
        self._facts: Facts | None = None
        self._client: Client | None = None

    def checks(self) -> tuple[Check, ...]:
        def check(name: str, run: Callable[[], str], *needs: str) -> Check:
            return Check(name, lambda: self._guarded(run), needs)

        return (
            check("address", self._address),
            check("port", self._port, "address"),
            check("host key", self._host_key, "port"),
            check("login", self._login, "host key"),
            check("SFTP", self._sftp, "login"),
            check("home folder", self._home, "SFTP"),
            check("architecture", self._architecture, "SFTP"),
            check("disk", self._disk, "architecture"),
            check("memory", self._memory, "login"),
            check("clock", self._clock, "login"),
            check("runner", self._runner, "SFTP"),
            check("session host", self._host, "runner"),
            check("training step", self._train, "home folder", "session host"),
        )

    def close(self) -> None:
        if self._connected is not None:
            self._connected.close()

    def _guarded(self, run: Callable[[], str]) -> str:
        """Run a check; when the connection is lost in it, what comes later is skipped, not waited for."""
        if self._connection is not None and not self._connection.alive:
            raise NotNow("the connection is lost")
        try:
            return run()
        except LinkLost:
            self.close()
            raise

    def _address(self) -> str:
        self._reach = Deadline.after(REACH_SECONDS)
        address = full_address(self._given)
        scheme, _ = split_address(address)
        if scheme != "ssh":
            raise LinkError(f"{address}: there is no way to look at such a device yet", "`edgekit doctor` looks at this machine")
        self._target = target = resolve(address)
        first = (*target.jumps, target)[0]
        found = _numbers(first, self._reach)
        through = f" through {', '.join(hop.host for hop in target.jumps)}" if target.jumps else ""
        return f"{target.user} at {target.host} port {target.port}{through} ({', '.join(found)})"

    def _port(self) -> str:
        assert self._target is not None
        start = time.perf_counter()
        self._connected = greet(self._target, self._ask, self._reach)
        milliseconds = (time.perf_counter() - start) * 1e3
        return f"{self._connected.transport.remote_version}, keys exchanged in {milliseconds:.0f} ms"

    def _host_key(self) -> str:
        assert self._connected is not None
        key = self._connected.transport.get_remote_server_key()
        known_hosts.verify(self._connected.target, key)
        return f"{key.get_name()} {known_hosts.fingerprint(key)}, known"

    def _login(self) -> str:
        assert self._connected is not None
        admit(self._connected, self._ask, self._reach)
        self._connection = Connection(self._connected)
        return f"as {self._connected.target.user}"

    def _sftp(self) -> str:
        board, deadline = self._open()
        board.sftp(deadline)
        return "there"

    def _home(self) -> str:
        """Write a file and remove it, and the folder too where it was not there."""
        board, deadline = self._open()
        sftp, home = board.sftp(deadline), board.home(deadline)
        new = sftp.stat(home, deadline) is None
        sftp.make_folders(home, deadline)
        probe_file = f"{home}/.doctor-{secrets.token_hex(4)}"
        try:
            handle = sftp.open(probe_file, WRITE | CREATE, deadline)
            sftp.sync(handle, probe_file, deadline)
            sftp.close(handle, probe_file, deadline)
        finally:
            if board.alive:
                sftp.remove(probe_file, deadline)
                if new:
                    sftp.rmdir(home, deadline)
        return f"{home} is writable" + (", and not there yet" if new else "")

    def _architecture(self) -> str:
        board, deadline = self._open()
        self._facts = facts = probe(board, deadline)
        target_of(facts, board.name)
        cores = "unknown" if facts.cores is None else facts.cores
        return f"{facts.system} {facts.kernel} on {facts.architecture}, {cores} cores"

    def _disk(self) -> str:
        assert self._facts is not None
        if self._facts.disk is None:
            return "unknown"
        if self._facts.disk < _ROOM:
            why = f"{self._given}: {self._facts.disk / 2**20:.1f} MiB are left where {self._facts.home} is or will be"
            hint = f"`edgekit clean {self._given}` removes what is not needed; or set EDGEKIT_HOME on the board to another disk"
            raise RemoteDiskFull(why, hint)
        return f"{self._facts.disk / 2**30:.1f} GiB free"

    def _memory(self) -> str:
        board, deadline = self._open()
        rows = [line.split() for line in board.run(_MEMORY, deadline).out.splitlines()]
        found = {row[0]: int(row[1]) * 1024 for row in rows if len(row) >= 2 and row[1].isdigit()}
        if "available" not in found:
            return "unknown"
        free = found["available"]
        if free < _ROOM:
            raise DeviceError(f"{self._given}: {free / 2**20:.0f} MiB of memory are left", "end other programs on the board")
        return f"{free / 2**30:.2f} GiB free of {found.get('total', 0) / 2**30:.2f} GiB"

    def _clock(self) -> str:
        board, deadline = self._open()
        return check_clock(board.name, read_clocks(board, deadline))

    def _runner(self) -> str:
        board, deadline = self._open()
        releases = ReleaseFolder(board, deadline).look(deadline)
        executable = runner.current(board.home(deadline))
        if board.sftp(deadline).stat(executable, deadline) is None:
            raise runner.no_runner(board, executable)
        done = runner.run(board, executable, ["version"], deadline)
        if done.code != 0 or not done.out.startswith("edgekit-runner"):
            raise DeviceError(f"{board.name}: the runner does not start: {done.words}", f"`edgekit flash {board.name}` renews it")
        if not releases.confirmed:
            raise DeviceError(f"{board.name}: the release is new, and its check was cut off", runner.confirm(board.name))
        return f"{done.out.splitlines()[0]}, release {(releases.current or 'unknown')[:12]}"

    def _host(self) -> str:
        board, _ = self._open()
        self._client = client = Client(SshLink(board, keep=True))
        info = client.info()
        if info.protocol != PROTOCOL:
            raise LinkError(
                f"{board.name}: the runner speaks protocol {info.protocol}, edgekit {PROTOCOL}",
                f"`edgekit flash {board.name}` brings the runner that fits",
            )
        return f"echo in {echo(client):.1f} ms, protocol {info.protocol}, {info.isa}, {_process(info)}, {activity(client)}"

    def _train(self) -> str:
        assert self._client is not None
        return train(self._client, self._given)

    def _open(self) -> tuple[Connection, Deadline]:
        """The connection, and the time that one check gets."""
        assert self._connection is not None
        return self._connection, Deadline.after(_SECONDS)


def _process(info: Info) -> str:
    return f"process {info.pid}, instance {info.instance:x}"


def _numbers(target: Target, deadline: Deadline) -> list[str]:
    """The IP addresses of a host; a resolver that hangs is not waited for.

    Raises:
        NameNotResolved: it has none.
    """
    answers: list[list[str] | OSError] = []

    def ask_resolver() -> None:
        try:
            rows = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(row[4][0]) for row in rows)))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask_resolver, daemon=True)
    thread.start()
    thread.join(deadline.remaining() / 2)
    answer = answers[0] if answers else TimeoutError(0, "the name server does not answer")
    if isinstance(answer, OSError):
        raise NameNotResolved(
            f"{target.address}: the name {target.host!r} has no address ({answer.strerror})",
            "is it spelled right, and on this network? `ping` it, or use its IP address; `edgekit devices` looks around",
        ) from answer
    return answer
