"""Brings a session the shards of its data set, piece by piece, between two looks at how it stands."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator

from edgekit.errors import IntegrityError, LinkError, NoSession, StorageError
from edgekit.links import Deadline, Link, Moved, Progress
from edgekit.links.progress import silent
from edgekit.protocol.client import FILE_SECONDS, Client
from edgekit.protocol.messages import Window
from edgekit.sessions.shards import Shards

log = logging.getLogger("edgekit")

_SLICE = 0.2  #: seconds of bringing, before the session is looked at again
_TRIES = 3  #: for one shard: what was changed on its way is brought again


class Feeder:
    """Feeds the session ``session`` (None: the runner's own) of a board. One request at a time, as every link can do it."""

    def __init__(self, client: Client, shards: Shards, session: str | None, progress: Progress = silent) -> None:
        self.done = False  #: everything is there
        self.brought = 0  #: shards that are there, or were
        self.total = 0
        self._client = client
        self._shards = shards
        self._session = session
        self._progress = progress
        self._pieces: Iterator[Window] | None = None
        self._link: Link | None = None  #: that the pieces go over
        self._window: Window | None = None
        self._failed: dict[int, int] = {}  #: by shard: how often it arrived changed

    def advance(self, step: int, waits: bool) -> bool:
        """Bring what there is room for, for a moment; whether anything moved. The session has done ``step`` steps, or ``waits``.

        Raises:
            DataError: the session began with another data set, or the board refuses a shard's content.
            IntegrityError: a shard arrives changed, again and again.
            LinkError: the board is gone, or its disk full.
        """
        end = time.monotonic() + _SLICE
        moved = False
        while not self.done and self._may_move(step, waits):
            moved = self._client.again(self._move)
            if not moved or time.monotonic() >= end:
                break
        return moved

    def close(self) -> None:
        """Bring no more; what is half there is left to the board."""
        self.done = True
        self._pieces = None

    def _may_move(self, step: int, waits: bool) -> bool:
        """Whether a question is worth its time: there is room where a shard was used up since the last answer."""
        window = self._window
        return (
            self._pieces is not None
            or window is None
            or waits
            or window.wanted < window.until
            or step // window.steps > window.first
        )

    def _move(self) -> bool:
        """One piece; False: the board has no room, or nothing is left to be done."""
        if self._pieces is None or self._link is not self._client.link:
            self._pieces, self._link = self._bring(), self._client.link
        try:
            self._window = next(self._pieces)
        except StopIteration:
            self._pieces = None
            return False
        except NoSession:  # it has just ended: whoever watches it sees how
            self.close()
            return False
        except IntegrityError:
            self._pieces = None
            self._count_failure()
        except StorageError:
            self._pieces = None
            if not self._ended():
                raise
            self.close()
        except LinkError:
            self._pieces = None
            raise
        return True

    def _ended(self) -> bool:
        """Whether the session is over: its spool goes with it."""
        try:
            self._client.shards(self._session)
        except NoSession:
            return True
        return False

    def _bring(self) -> Iterator[Window]:
        """Shards one after another, as long as there is room; what the board said last, after each piece."""
        window = self._look(self._client.shards(self._session))
        while window.wanted < window.until:
            number = window.wanted
            shard = self._shards.build(window, number)
            for _ in self._client.link.bring(shard, f"{window.folder}/{number}", Deadline.after(FILE_SECONDS)):
                yield window
            window = self._look(self._client.shard_brought(number, len(shard), hashlib.sha256(shard).digest(), self._session))
            yield window
        self._window = window
        self.done = window.wanted >= window.total

    def _look(self, window: Window) -> Window:
        self._shards.check(window)
        self.brought, self.total = window.wanted, window.total
        samples = min(window.wanted * window.steps * self._shards.per_step, window.limit)
        self._progress(Moved("data", samples * self._shards.sample_bytes, window.limit * self._shards.sample_bytes))
        return window

    def _count_failure(self) -> None:
        number = self.brought
        self._failed[number] = self._failed.get(number, 0) + 1
        log.warning("shard %d was changed on its way; it is brought again", number)
        if self._failed[number] >= _TRIES:
            raise IntegrityError(
                f"shard {number} arrived changed {_TRIES} times", "the board's disk or memory may be failing: see its kernel log"
            )
