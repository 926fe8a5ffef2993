"""Room on a board: edgekit keeps within its share of the disk, and clears up where the disk is full (docs/session-host.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgekit.errors import BoardFull, BusyError, DeviceError, EdgekitError, LinkError
from edgekit.files import storage_errors
from edgekit.links.link import Link, StoringLink
from edgekit.protocol import Client
from edgekit.sessions.usage import Rules, Usage, Verdict, judge, parse_usage

SHARE = 2  #: edgekit takes one part in so many of the disk's room, which is what is free and what it has itself
_RESERVE = 1 << 20  #: bytes that are freed at least where the disk is full

T = TypeVar("T")


@dataclass(frozen=True)
class Removed:
    """``verdict`` was carried out; ``done`` is false where the board found somebody who needs it by now."""

    verdict: Verdict
    done: bool


class Room:
    """The disk of a board that keeps things, as far as edgekit uses it. Every method raises LinkError.

    ``budget``: the most bytes that edgekit may take; None: its share, which is no limit to what has to be.
    """

    def __init__(self, client: Client, budget: int | None = None) -> None:
        self.rules = Rules()  #: what may go
        self._client = client
        self.budget = budget
        self._spare = 0  #: bytes that may still be added without another look

    def look(self) -> Usage:
        """What there is."""
        return parse_usage(self._client.again(lambda: _storing(self._client.link).usage()))

    def limit(self, usage: Usage) -> int:
        """The most bytes that edgekit takes: the budget, or its share."""
        return self.budget if self.budget is not None else (usage.used + (usage.free or 0)) // SHARE

    def judge(self, usage: Usage) -> list[Verdict]:
        """Say of every entry whether it may go, and why (edgekit.sessions.usage)."""
        return judge(usage, self._client.sessions(), self.rules)

    def remove(self, verdicts: Iterable[Verdict], listen: Callable[[Removed], None] = lambda _: None) -> int:
        """Remove what may go, in this order; bytes freed. Whatever cuts it, the board is sound.

        Only what was not used in the meantime goes: the board looks again itself.
        """
        freed = 0
        for verdict in verdicts:
            if not verdict.goes:
                continue
            done = self._remove(verdict)
            freed += verdict.entry.bytes if done else 0
            listen(Removed(verdict, done))
        return freed

    def put(self, local: Path) -> str:
        """Bring a file or a folder to the board, after making room for it; its path there.

        Raises:
            BoardFull: the budget does not allow it, or the disk is full, whatever may go being gone.
        """
        bytes_ = _size(local)
        if not self._spare_for(bytes_):
            bytes_ = self._client.missing(local)  # which reads all of it, and counts what is there as used
            if bytes_:
                self.make(bytes_, local.name)
        return self.using(lambda: self._client.put_file(local), bytes_)

    def make(self, bytes_: int, name: str) -> None:
        """Make room for so many bytes, which ``name`` takes, within the budget, or the share.

        Raises:
            BoardFull: the budget does not allow it, whatever may go being gone.
        """
        usage = self.look()
        used = usage.used
        excess = bytes_ - self._spare_of(usage)
        freed = self._free(usage, excess) if excess > 0 else 0
        if self.budget is not None and used - freed + bytes_ > self.budget:
            what = f"{self._client.link.name}: {name} takes {_mib(bytes_)}, and {_mib(used - freed)} of the budget of "
            fault = BoardFull(f"{what}{_mib(self.budget)} are taken", "raise the budget (--budget, or in devices.toml)")
            raise self._explained(fault, usage if not freed else self.look(), bytes_)
        self._spare = max(0, freed - excess)

    def _spare_for(self, bytes_: int) -> bool:
        """Whether so many bytes fit without clearing up. They are counted; the board is looked at only where they may not fit."""
        if bytes_ > self._spare:
            self._spare = self._spare_of(self.look())
        fits = bytes_ <= self._spare
        self._spare -= bytes_ if fits else 0
        return fits

    def _spare_of(self, usage: Usage) -> int:
        """Bytes that may be added; negative where there is too much already."""
        left = self.limit(usage) - usage.used
        return left if usage.free is None else min(left, usage.free)

    def available(self, free: int) -> int:
        """Bytes that could be used once all that may go is gone, within the budget; ``free`` are free as it is."""
        usage = self.look()
        removable = sum(verdict.entry.bytes for verdict in self.judge(usage) if verdict.goes)
        if self.budget is None:
            return free + removable
        return max(0, min(free, self.budget - usage.used) + removable)

    def using(self, do: Callable[[], T], bytes_: int) -> T:
        """Do what takes so many bytes on the board's disk; where it is full, clear up and do it once more.

        Raises:
            BoardFull: it is still full; the message says what is kept.
        """
        try:
            return do()
        except BoardFull as error:
            fault = error
        try:
            usage = self.look()
        except LinkError as error:  # nothing can be cleared up: the first trouble is the news
            raise fault from error
        freed = self._free(usage, max(bytes_, _RESERVE))
        if freed:
            try:
                return do()
            except BoardFull as error:
                fault = error
                usage = self.look()
        raise self._explained(fault, usage, bytes_) from fault

    def _free(self, usage: Usage, bytes_: int) -> int:
        """Remove what may go until so many bytes are freed, or nothing is left that may."""
        freed = 0
        for verdict in self.judge(usage):
            if freed >= bytes_ or not verdict.goes:
                break
            freed += self.remove([verdict])
        return freed

    def _remove(self, verdict: Verdict) -> bool:
        path = verdict.entry.path
        if not verdict.forced:
            return self._client.discard(path, self.rules.unused)
        try:
            self._client.remove(path.partition("/")[2])
        except BusyError:  # resumed meanwhile
            return False
        return True

    def _explained(self, fault: BoardFull, usage: Usage, bytes_: int) -> BoardFull:
        """The error with what is needed, and what is kept."""
        try:
            kept = [verdict for verdict in self.judge(usage) if not verdict.goes]
        except EdgekitError:
            return fault
        sizes = Counter[str]()
        for verdict in kept:
            sizes[verdict.entry.kind] += verdict.entry.bytes
        words = ", ".join(f"{_mib(size)} of {_PLURAL[kind]}" for kind, size in sizes.most_common(3) if size) or "nothing"
        free = "an unknown amount is" if usage.free is None else f"{_mib(usage.free)} are"
        name = self._client.link.name
        otherwise = "or free some space on the board" if "edgekit clean" in fault.hint else fault.hint
        return type(fault)(
            f"{fault.message}; needed: {_mib(bytes_)}, {free} free, and what is kept ({words}) may not be removed",
            f"`edgekit clean {name}` shows what takes the room and why it stays; {otherwise}",
        )


_PLURAL = {
    "store": "files that sessions need or that were just used",
    "work": "results",
    "sessions": "sessions",
    "releases": "releases",
    "log": "log",
    "other": "the runner's own files",
}


def _size(local: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    with storage_errors(f"cannot read {local}"):
        return sum(path.stat().st_size for path in (local.iterdir() if local.is_dir() else [local]))


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _storing(link: Link) -> StoringLink:
    if not isinstance(link, StoringLink):
        raise DeviceError(f"{link.name} stores nothing", "`edgekit devices` lists boards")
    return link
