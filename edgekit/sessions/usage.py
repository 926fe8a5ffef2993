"""What a board's home folder holds, and what of it may go (docs/session-host.md, "Room")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.protocol import KeptSession

UNUSED = 1200  #: seconds for which nobody may have used what goes: another host may be about to start with what it sent

Kind = Literal["store", "work", "sessions", "releases", "log", "other"]
_FOLDERS: dict[str, Kind] = {"store": "store", "work": "work", "sessions": "sessions", "releases": "releases"}
_RESUMABLE = ("stopped", "failed")


@dataclass(frozen=True)
class Entry:
    """One thing in the home folder. ``path`` is relative to it; ``unused``: seconds since it was made, changed or used."""

    path: str
    bytes: int
    unused: int

    @property
    def kind(self) -> Kind:
        if self.path in ("run/log", "run/log.1"):
            return "log"
        return _FOLDERS.get(self.path.partition("/")[0], "other")


@dataclass(frozen=True)
class Usage:
    """The home folder.

    Attributes:
        free: bytes free on its disk; None: unknown.
        entries: all that lies there.
        links: where a path leads to: a data set to files of the store, ``current`` and ``previous`` to a release.
        needs: by session: what it cannot do without.
    """

    free: int | None
    entries: tuple[Entry, ...]
    links: Mapping[str, frozenset[str]]
    needs: Mapping[str, frozenset[str]]

    @property
    def used(self) -> int:
        """Bytes of all that lies there."""
        return sum(entry.bytes for entry in self.entries)


@dataclass(frozen=True)
class Verdict:
    """Whether an entry may go, and why. ``forced``: a session that goes whether or not it was fetched."""

    entry: Entry
    goes: bool
    why: str
    forced: bool = False


def parse_usage(text: str) -> Usage:
    """Read what ``edgekit-runner usage`` prints; lines of a kind that is not known are passed over."""
    free: int | None = None
    entries: list[Entry] = []
    links: dict[str, set[str]] = defaultdict(set)
    needs: dict[str, set[str]] = defaultdict(set)
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        match word, rest.split(" ", 2 if word == "entry" else 1):
            case "free", [count]:
                free = int(count)
            case "entry", [size, unused, path]:
                entries.append(Entry(path, int(size), int(unused)))
            case "link", [source, target]:
                links[source].add(target.replace("../", "store/", 1))
            case "need", [session, path]:
                needs[session].add(_in_home(path))
    return Usage(free, tuple(entries), _frozen(links), _frozen(needs))


@dataclass(frozen=True)
class Rules:
    """What may go.

    Attributes:
        unused: seconds for which nobody may have used it.
        all_finished: trainings that ended otherwise than done, or were not fetched, may go too.
    """

    unused: int = UNUSED
    all_finished: bool = False


def judge(usage: Usage, sessions: Sequence[KeptSession], rules: Rules) -> list[Verdict]:
    """Say of every entry whether it may go; those that may come first, in the order in which they should.

    What nothing needs comes first, what was not used for longest before the rest; then trainings that are done and at home,
    the oldest first, each followed by what it alone needed; then releases that are neither current nor previous.

    Args:
        sessions: what the board keeps, the oldest first.
    """
    needs = dict(usage.needs)
    going = {entry.path: Verdict(entry, True, "nothing needs it") for entry in _unneeded(usage, needs, rules)}
    entries = {entry.path: entry for entry in usage.entries}
    for session in sessions:
        entry = entries.get(f"sessions/{session.id}")
        if entry is None or _session_stays(session, entry, needs, rules):
            continue
        needs.pop(session.id, None)
        why = f"{session.state} and fetched" if session.fetched else f"{session.state}, not fetched"
        going[entry.path] = Verdict(entry, True, why, forced=rules.all_finished)
        for freed in _unneeded(usage, needs, rules):
            going.setdefault(freed.path, Verdict(freed, True, f"only session {session.id} needs it"))
    known = {session.id: session for session in sessions}
    rest = [entry for entry in usage.entries if entry.path not in going]
    reasons = {entry.path: _why_stays(entry, usage, needs, known, rules) for entry in rest}
    left = [Verdict(entry, True, "left over") for entry in rest if not reasons[entry.path]]
    stay = [Verdict(entry, False, reasons[entry.path]) for entry in rest if reasons[entry.path]]
    return [*going.values(), *left, *stay]


def _unneeded(usage: Usage, needs: Mapping[str, frozenset[str]], rules: Rules) -> Iterator[Entry]:
    """What may go of store and work, as things stand; a data set before the files that it links to."""
    young = {entry.path for entry in usage.entries if entry.unused < rules.unused}
    under_way = {path for path, files in usage.links.items() if any(f"{file}.part" in young for file in files)}
    held = frozenset().union(young, under_way, *needs.values())
    held |= frozenset().union(*(usage.links.get(path, frozenset()) for path in held))
    free = {e.path: e for e in usage.entries if e.kind in ("store", "work") and e.path not in held}
    sets = [path for path in free if path in usage.links]
    given: set[str] = set()
    for entry in sorted(free.values(), key=lambda entry: -entry.unused):
        for path in (*(s for s in sets if entry.path in usage.links[s]), entry.path):
            if path not in given:
                given.add(path)
                yield free[path]


def _why_stays(
    entry: Entry,
    usage: Usage,
    needs: Mapping[str, frozenset[str]],
    sessions: Mapping[str, KeptSession],
    rules: Rules,
) -> str:
    """Empty: nothing speaks for it."""
    match entry.kind:
        case "sessions":
            session = sessions.get(entry.path.partition("/")[2])
            return _recent(entry, rules) if session is None else _session_stays(session, entry, needs, rules)
        case "releases":
            leading = [name for name in ("current", "previous") if entry.path in usage.links.get(name, ())]
            return f"the {leading[0]} release" if leading else _recent(entry, rules)
        case "store" | "work":
            return _needed(entry.path, needs) or _recent(entry, rules) or "a data set that stays has it"
        case "log":
            return "the log is rotated"
    return "belongs to the runner"


def _session_stays(session: KeptSession, entry: Entry, needs: Mapping[str, frozenset[str]], rules: Rules) -> str:
    """Empty: it may go."""
    others = {id: paths for id, paths in needs.items() if id != session.id}
    ended = session.state == "done" or session.state in _RESUMABLE
    if not ended:
        return f"{session.state}" + (": it can be resumed" if session.state == "interrupted" else "")
    if not rules.all_finished and session.state in _RESUMABLE:
        return f"{session.state}: it can be resumed"
    if not rules.all_finished and not session.fetched:
        return "not fetched"
    return _needed(entry.path, others) or ("" if rules.all_finished else _recent(entry, rules))


def _needed(path: str, needs: Mapping[str, frozenset[str]]) -> str:
    names = [id for id, paths in needs.items() if path in paths]
    return f"session {names[0]} needs it" + (f", and {len(names) - 1} more" if names[1:] else "") if names else ""


def _recent(entry: Entry, rules: Rules) -> str:
    return f"used {entry.unused // 60} min ago" if entry.unused < rules.unused else ""


def _in_home(path: str) -> str:
    """``store/x``, ``work/x`` or ``sessions/x`` by a path's tail: the way to the home may lead through symbolic links."""
    for kind in ("store", "work", "sessions"):
        _, found, tail = path.rpartition(f"/{kind}/")
        if found:
            return f"{kind}/{tail.partition('/')[0]}"
    return path


def _frozen(sets: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {key: frozenset(values) for key, values in sets.items()}
