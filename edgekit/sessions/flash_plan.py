"""What flashing a board will do: the board's facts, and a list of steps that is printed and carried out as it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.firmware.build import build
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import Connection
from edgekit.links.ssh.errors import NoRunner, WrongArchitecture
from edgekit.links.ssh.store import sha256_of
from edgekit.sessions.releases import ReleaseFolder, Releases

#: Build targets by what ``uname -s`` and ``uname -m`` say.
_TARGETS = {
    ("Linux", "x86_64"): "x86_64-linux",
    ("Linux", "amd64"): "x86_64-linux",
    ("Linux", "aarch64"): "aarch64-linux",
    ("Linux", "arm64"): "aarch64-linux",
}
_PROBE = (
    'for fact in "$(uname -s)" "$(uname -m)" "$(uname -r)" "$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null)"'
    """ "$(sed -n 's/^MemTotal: *//p' /proc/meminfo 2>/dev/null)"; do printf 'edgekit=%s\\n' "$fact"; done"""
)

#: Called while the runner is built: files done, files in all, what was done.
Building = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Facts:
    """The board. ``memory`` and ``disk`` (free) are in bytes; None: unknown."""

    system: str
    architecture: str
    kernel: str
    cores: int | None
    memory: int | None
    disk: int | None
    home: str
    user: str


@dataclass(frozen=True)
class Upload:
    """Bring the runner to the board, or the rest of it."""

    local: Path
    release: str
    bytes: int

    def __str__(self) -> str:
        return f"upload {self.bytes / 1024:.0f} KiB to releases/{self.release[:12]}…/edgekit-runner"


@dataclass(frozen=True)
class Verify:
    """Compare its digest, computed on the board."""

    local: Path
    release: str

    def __str__(self) -> str:
        return f"verify the SHA-256 {self.release[:12]}… on the board"


@dataclass(frozen=True)
class Trial:
    """Run ``version`` and ``check`` from its own folder."""

    release: str

    def __str__(self) -> str:
        return "run `edgekit-runner version` and `edgekit-runner check`"


@dataclass(frozen=True)
class Reset:
    """Ask a session host of another release to end."""

    release: str

    def __str__(self) -> str:
        return "ask a running session host of another release to end, if it is idle"


@dataclass(frozen=True)
class Switch:
    """Make ``current`` lead to ``new`` and ``previous`` to ``old`` (None: there is none, and ``previous`` stays)."""

    new: str
    old: str | None
    back: bool = False  #: a rollback: ``current`` first, so that a cut between the two keeps a way forward

    def __str__(self) -> str:
        return f"switch current to {self.new[:12]}…" + (f", previous to {self.old[:12]}…" if self.old else "")


@dataclass(frozen=True)
class Health:
    """Talk to the board through the new ``current``; on failure go back to ``old`` and ``previous``."""

    release: str
    old: str | None
    previous: str | None

    def __str__(self) -> str:
        return "check that the board answers, and confirm the release; if not, switch back"


@dataclass(frozen=True)
class Prune:
    """Remove releases that neither link leads to, and what an interrupted flash left."""

    releases: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.releases)
        old = f"{count} old release{'' if count == 1 else 's'} and " if count else ""
        return f"remove {old}what an interrupted flash left"


Step = Upload | Verify | Trial | Reset | Switch | Health | Prune


@dataclass(frozen=True)
class Plan:
    """What will be done at ``address``; ``found`` is what is there before."""

    address: str
    facts: Facts
    release: str
    found: Releases
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        steps = [
            {"step": type(s).__name__.lower(), "text": str(s), **{k: str(v) if k == "local" else v for k, v in asdict(s).items()}}
            for s in self.steps
        ]
        board = asdict(self.facts)
        found = {"current": self.found.current, "previous": self.found.previous}
        return {"address": self.address, "board": board, "release": self.release, **found, "steps": steps}


def probe(connection: Connection, deadline: Deadline) -> Facts:
    """What the board is; one command and a look at its disk."""
    said = [line[8:] for line in connection.run(_PROBE, deadline).out.splitlines() if line.startswith("edgekit=")]
    system, machine, kernel, cores, memory = [*said, *[""] * 5][:5]
    home = connection.home(deadline)
    amount = memory.split()[0] if memory else ""
    return Facts(
        system=system or "unknown",
        architecture=machine or "unknown",
        kernel=kernel or "unknown",
        cores=int(cores) if cores.isdigit() else None,
        memory=int(amount) * 1024 if amount.isdigit() else None,
        disk=_free(connection, home, deadline),
        home=home,
        user=connection.target.user,
    )


def target_of(facts: Facts, address: str) -> str:
    """The build target for a board.

    Raises:
        WrongArchitecture: edgekit has no runner for it.
    """
    target = _TARGETS.get((facts.system, facts.architecture))
    if target is None:
        supported = ", ".join(sorted({f"{system} {machine}" for system, machine in _TARGETS}))
        hint = "install the 64-bit operating system" if facts.architecture.startswith("arm") else f"supported: {supported}"
        raise WrongArchitecture(f"{address}: there is no runner for {facts.system} on {facts.architecture}", hint)
    return target


def plan_flash(connection: Connection, deadline: Deadline, runner: Path | None = None, building: Building | None = None) -> Plan:
    """Look at the board, get the right runner (``runner``, or one from the cache, or a new build) and say what there is to do.

    Nothing is changed on the board. ``deadline`` is for the look at it; building begins it anew.

    Raises:
        WrongArchitecture: there is no runner for this board.
        BuildError: the compiler failed.
        LinkError: the board is gone.
    """
    facts = probe(connection, deadline)
    local = runner or build("runner", target_of(facts, connection.name), building)
    deadline = Deadline.after(deadline.seconds)  # a build takes its own time
    release, size = sha256_of(local), local.stat().st_size
    folder = ReleaseFolder(connection, deadline)
    found = folder.look(deadline)
    there = folder.size(release, deadline) == size
    steps: list[Step] = [] if there else [Upload(local, release, size)]
    steps += [Verify(local, release), Trial(release), Reset(release)]
    before = found.before(release)
    if found.current != release:
        steps.append(Switch(release, before))
    steps.append(Health(release, before, found.previous))
    kept = {release, found.previous if before == release else before}
    steps.append(Prune(tuple(name for name in (*found.whole, *found.unfinished) if name not in kept)))
    return Plan(connection.name, facts, release, found, tuple(steps))


def plan_rollback(connection: Connection, deadline: Deadline) -> Plan:
    """Say what there is to do to go back to the previous release.

    Raises:
        NoRunner: the board was never flashed.
        InputError: there is no previous release.
        LinkError: the board is gone.
    """
    facts = probe(connection, deadline)
    folder = ReleaseFolder(connection, deadline)
    found = folder.look(deadline)
    if found.current is None:
        raise NoRunner(f"{connection.name}: there is no runner on the board", f"`edgekit flash {connection.name}` brings it")
    if found.previous in (None, found.current) or found.previous not in found.whole:
        raise InputError(f"{connection.name}: there is no previous release to go back to", "flash the version that you want")
    assert found.previous is not None
    steps: tuple[Step, ...] = (
        Trial(found.previous),
        Reset(found.previous),
        Switch(found.previous, found.current, back=True),
        Health(found.previous, found.current, found.previous),
    )
    return Plan(connection.name, facts, found.previous, found, steps)


def _free(connection: Connection, path: str, deadline: Deadline) -> int | None:
    """Bytes free on the disk that a folder lies on, or will."""
    while path:
        if disk := connection.sftp(deadline).disk(path, deadline):
            return disk.free
        path = path.rpartition("/")[0]
    disk = connection.sftp(deadline).disk("/", deadline)
    return disk.free if disk else None
