"""Where a training session's records and its result come from: the runner's one session, or one that the board keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit.errors import DeviceError
from edgekit.protocol.client import Client
from edgekit.protocol.messages import LIVE, Cached, KeptSession, Records, State

CHECKPOINT = "checkpoint.ekc"


@dataclass(frozen=True)
class End:
    """How a session ended: ``rc`` and ``why`` as docs/protocol.md has them."""

    state: State
    rc: int
    why: str
    cached: Cached | None = None  #: of the frozen prefix, as far as the board still knows


class Feed(Protocol):
    """One training session on a board."""

    @property
    def id(self) -> str | None:
        """What the board calls it; None: nothing is kept there, and it ends with the connection."""

    @property
    def device(self) -> str:
        """The board's address, for messages."""

    def records(self, since: int, most: int) -> Records:
        """Records from a cursor on, and the session's state."""

    def recorded(self) -> int:
        """The cursor after its last record."""

    def stop(self) -> None:
        """Ask it to stop after the step under way."""

    def end(self) -> End:
        """How it stands."""

    def fetch_state(self, local: Path) -> str:
        """Fetch the parameters of a session that is over, or as they are now; returns the checkpoint's path on the board."""

    def fetched(self) -> None:
        """All of a session that is done is at home."""


class LiveFeed:
    """The session of a runner that keeps nothing."""

    id: str | None = None

    def __init__(self, client: Client) -> None:
        self.device = client.link.name
        self._client = client

    def records(self, since: int, most: int) -> Records:
        return self._client.records(since, most)

    def recorded(self) -> int:
        return self._client.status().next

    def stop(self) -> None:
        self._client.stop()

    def end(self) -> End:
        status = self._client.status()
        return End(status.state, status.rc, status.why, status.cache)

    def fetch_state(self, local: Path) -> str:
        remote = self._client.board_path(local)
        self._client.save(remote)
        self._client.get_file(remote, local)
        return remote

    def fetched(self) -> None:
        return


class KeptFeed:
    """A session that a board keeps, whoever started it."""

    def __init__(self, client: Client, home: str, session: str) -> None:
        self.id: str = session
        self.device = client.link.name
        self._client = client
        self._checkpoint = f"{home}/sessions/{session}/{CHECKPOINT}"

    def records(self, since: int, most: int) -> Records:
        return self._client.records(since, most, self.id)

    def recorded(self) -> int:
        return find_kept(self._client, self.id).records

    def stop(self) -> None:
        self._client.stop(self.id)

    def end(self) -> End:
        kept, status = find_kept(self._client, self.id), self._client.status()
        return End(kept.state, kept.rc, kept.why, status.cache if status.session == self.id else None)

    def fetch_state(self, local: Path) -> str:
        if self.end().state in LIVE:
            remote = self._client.board_path(local)
            self._client.save(remote)
        else:
            remote = self._checkpoint
        self._client.get_file(remote, local)
        return remote

    def fetched(self) -> None:
        self._client.fetched(self.id)


def find_kept(client: Client, session: str) -> KeptSession:
    """The session of that id that the board keeps.

    Raises:
        DeviceError: it keeps none of that id.
    """
    kept = client.sessions()
    found = next((k for k in kept if k.id == session), None)
    if found is None:
        names = ", ".join(k.id for k in kept[-3:]) or "none"
        name = client.link.name
        raise DeviceError(f"{name} keeps no session {session!r}", f"it keeps {names}: see `edgekit sessions {name}`")
    return found
