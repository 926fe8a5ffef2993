"""A training session: records as the board makes them, and what is left when it is over."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgekit.errors import DeviceError, EdgekitError, InternalError, LinkError, LinkLost, StorageError
from edgekit.program import Program
from edgekit.protocol.client import Client, Restarted
from edgekit.protocol.faults import device_error
from edgekit.protocol.interrupt import deferred_interrupt
from edgekit.protocol.messages import LIVE, Cached, Records, State
from edgekit.sessions.checkpoint import read_checkpoint
from edgekit.sessions.feed import CHECKPOINT, Feed
from edgekit.sessions.feeder import Feeder
from edgekit.sessions.memory import Memory
from edgekit.telemetry import Record, RunFolder, Summary, summarize

log = logging.getLogger("edgekit")

RUNS = Path("runs")  #: where runs go that are given no folder
FINAL = "final.ekc"
_AT_ONCE = 128  #: records asked for in one message; the board gives fewer where they do not fit
_LIVE = 0.02  #: seconds until the second look at a session; later ones are further apart
_SOON = 0.002  #: … and the end of something that was asked to end


@dataclass(frozen=True)
class Result:
    """How a session ended. ``state`` is "done" or "stopped"; ``checkpoint`` is None where it could not be written."""

    state: State
    steps: int
    planned: int
    samples: int | None
    dropped: int | None  #: samples of each epoch that fill no whole batch
    summary: Summary
    folder: Path
    checkpoint: Path | None


@dataclass(frozen=True)
class Plan:
    """What is known of a session when it is watched: steps in all, samples, and those of each epoch that fill no batch.

    ``cursor`` is where its records begin on the board; ``memory``, ``samples`` and ``dropped`` are None where another host
    started it.
    """

    steps: int
    cursor: int = 0
    samples: int | None = None
    dropped: int | None = None
    memory: Memory | None = None


class Session:
    """A training session on a board. Iterate for its records; leave the loop early and the board stops, if you started it.

    Iterating again starts with the first record again. A session that the board keeps (``id`` is not None) goes on without
    us: after ``detach``, and where the link is lost for good.
    """

    def __init__(self, feed: Feed, program: Program, plan: Plan, folder: RunFolder, feeder: Feeder | None = None) -> None:
        self.program = program
        self.id = feed.id
        self.planned = plan.steps
        self.samples = plan.samples
        self.dropped = plan.dropped
        self.memory = plan.memory
        self.folder = folder.path
        self.records: list[Record] = list(folder.records)
        self.lost = 0  #: records that came too fast to be fetched: the board keeps only the latest
        self.checkpoint: Path | None = None  #: the final state, once the session is over
        self.board_checkpoint: str | None = None  #: … and where it lies on the board
        self.cached: Cached | None = None  #: of the frozen prefix, once the session is over; None: it was not to be cached
        self.waiting = False  #: the board lacks data
        self.watched = False  #: only: whoever leaves the loop early leaves the board alone
        self.feeder = feeder  #: brings the data, where it does not fit on the board: while the session is iterated
        self._feed = feed
        self._folder = folder
        self._arena = max(e.arena_bytes for name, e in program.entries.items() if name in ("train_step", "update"))
        self._cursor = plan.cursor + len(self.records)
        self._left = 0  #: records that the board has and we have not
        self._state: State = "running"
        self._error: EdgekitError | None = None
        self._over = False
        if plan.dropped:
            log.warning("%d samples of each epoch fill no whole batch and are left out", plan.dropped)

    def __iter__(self) -> Iterator[Record]:
        """Every record, the last ones as the board makes them.

        Raises:
            DivergedError: the loss left the numbers.
            DataError: the data does; the message names file and sample.
            LinkError: the board is gone.
            StorageError: the run's folder, or the board's disk, is full.
        """
        given, more = 0, True
        pause = Pause(_LIVE)
        try:
            while True:
                while given < len(self.records):
                    given += 1
                    yield self.records[given - 1]
                if self._over:
                    break
                pause.reset() if more else pause.wait()
                more = self._pull()
                if self._left < _AT_ONCE:  # or a narrow line falls behind: the board keeps only the latest
                    more |= self._bring()
        finally:
            if not self._over and not self.watched:
                self.stop()
        if self._error is not None:
            raise self._error

    @property
    def ended_as(self) -> State:
        """ "running", or how it ended: "done", "stopped" or "failed"."""
        return self._state

    @property
    def running(self) -> bool:
        """Whether the board still trains, as far as is known here."""
        return not self._over

    def result(self) -> Result:
        """Wait for the end.

        Raises: as iterating does.
        """
        for _ in self:
            pass
        steps = self.records[-1].step if self.records else 0
        summary = summarize(self.records)
        return Result(self._state, steps, self.planned, self.samples, self.dropped, summary, self.folder, self.checkpoint)

    def stop(self) -> None:
        """Stop after the step under way; keeps what was trained. A session that is over stays as it is.

        Raises:
            LinkError: the board is gone.
        """
        if self._over:
            return
        try:
            self._feed.stop()
        except LinkError as error:
            self._lost(error)
            raise
        pause = Pause(_SOON)
        while not self._over:
            if not self._pull():
                pause.wait()

    def detach(self) -> None:
        """Watch no longer; a session that the board keeps goes on there. One that is over stays as it is.

        Raises:
            InternalError: the board does not keep the session.
        """
        if self._over:
            return
        if self.id is None:
            raise InternalError("a session that its board does not keep cannot go on alone")
        self._complete(None, ended=None)

    def catch_up(self) -> None:
        """Fetch what the board has recorded by now, without waiting for more, and its parameters; then as ``detach``."""
        now_there = self._feed.recorded()
        while not self._over and (self._cursor < now_there or self._feed.end().state not in LIVE):
            self._pull()
        if not self._over:
            with contextlib.suppress(EdgekitError):  # it may have been over, or gone on, a moment later
                self._feed.fetch_state(self.folder / CHECKPOINT)
            self.detach()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The trained arrays by their names in the program: as they are now, or were at the end.

        Raises:
            DeviceError: the session failed, so there is nothing to fetch.
        """
        if self._over and self.checkpoint is None:
            raise self._error or InternalError("the session left no checkpoint")
        path = self.checkpoint
        if path is None:
            path = self.folder / "now.ekc"
            self._feed.fetch_state(path)
        return read_checkpoint(path).state(self.program)

    def write_back(self, model: Any) -> None:
        """Put what the board trained into the user's own ``torch.nn.Module``, BatchNorm unfolded.

        Raises:
            InputError: it is not the model that the program was compiled from.
        """
        from edgekit.frontends.torch.write_back import write_back  # torch takes seconds to import

        write_back(self.program, self.state(), model)

    def _pull(self) -> bool:
        """Fetch the records that are new and note the end; whether more is there already."""
        try:
            reply = self._feed.records(self._cursor, _AT_ONCE)
            self._note_waiting(reply.state == "waiting")
            if reply.records or reply.state in LIVE:
                return self._note(reply)
            with deferred_interrupt():  # the folder of a session that ended gets its result
                self._finish()
        except LinkError as error:
            if not self._over:
                self._lost(error)
            raise
        return False

    def _note_waiting(self, waits: bool) -> None:
        if waits and not self.waiting and self.feeder is None:
            log.warning(
                "the session %s waits for data: `edgekit attach %s %s --data DIR` brings it", self.id, self._feed.device, self.id
            )
        self.waiting = waits

    def _bring(self) -> bool:
        """Give the board what it has room for; whether anything moved."""
        if self._over or self.feeder is None:
            return False
        try:
            return self.feeder.advance(self.records[-1].step if self.records else 0, self.waiting)
        except EdgekitError as error:
            if isinstance(error, LinkError) and not isinstance(error, StorageError):
                self._lost(error)
            else:
                self._abandon(error)
            raise

    def _note(self, reply: Records) -> bool:
        with deferred_interrupt():  # what is in the folder and what is told stay the same
            if reply.first > self._cursor:
                self.lost += reply.first - self._cursor
                log.warning("%d records came too fast to be fetched", reply.first - self._cursor)
            new = [row for row in reply.records if row[0] is not None and row[0] >= self._cursor]
            self._left = reply.left
            self._cursor = max(self._cursor, reply.next)  # a board that lost its last records makes them once more
            try:
                for record in (Record.from_wire(row, self._arena) for row in new):
                    self._folder.append(record)
                    self.records.append(record)
            except EdgekitError as error:
                self._abandon(error)
                raise
        return reply.state not in LIVE or reply.left > 0 or 2 * len(reply.records) >= _AT_ONCE

    def _finish(self) -> None:
        """The board is done: fetch the final state and complete the run's folder."""
        end = self._feed.end()
        self.cached = end.cached
        if end.state == "failed":
            self._error = device_error(end.rc, end.why, self._feed.device)
        elif end.state == "interrupted":
            self._error = DeviceError(
                f"{self._feed.device}: the board's runner ended in the middle of the session {self.id}",
                f"`edgekit resume {self._feed.device} {self.id}` goes on from its last checkpoint",
            )
        else:
            try:
                self.board_checkpoint = self._feed.fetch_state(self.folder / FINAL)
                self.checkpoint = self.folder / FINAL
            except LinkLost:
                raise
            except EdgekitError as error:
                self._error = error
        self._state = end.state
        self._complete(self._error)
        if end.state == "done" and self._error is None:
            with contextlib.suppress(EdgekitError):  # the board keeps what it does not know to be at home
                self._feed.fetched()

    def _abandon(self, error: EdgekitError) -> None:
        """The run's folder cannot be written any more, or the data not be brought: stop the board and let it be."""
        self._error = error
        self._state = "stopped"
        with contextlib.suppress(EdgekitError):
            self._feed.stop()
            pause = Pause(_SOON)
            while self._feed.end().state in LIVE:
                pause.wait()
        with contextlib.suppress(EdgekitError):
            self._complete(error)

    def _lost(self, error: LinkError) -> None:
        """The link is gone for good. What the board keeps goes on there."""
        if self.id is not None and isinstance(error, Restarted):
            error.hint = f"`edgekit resume {self._feed.device} {self.id}` goes on from its last checkpoint"
        if self.id is not None and isinstance(error, LinkLost):
            attach = f"edgekit attach {self._feed.device} {self.id}"
            error.hint = f"the session {self.id} goes on on the board: `{attach}` watches it again"
            if self.feeder is not None:
                error.hint = f"the session {self.id} waits for its data: `{attach} --data DIR` goes on"
        self._error = error
        self._state = "running" if self.id is not None else "failed"
        with contextlib.suppress(EdgekitError):
            self._complete(error, ended=None if self.id is not None else now())

    def _complete(self, error: EdgekitError | None, **ended: str | None) -> None:
        result = {
            "state": self._state,
            "steps": self.records[-1].step if self.records else 0,
            "lost_records": self.lost,
            "error": None if error is None else error.message,
            "cache": None if self.cached is None else self.cached.model_dump(),
            "summary": asdict(summarize(self.records)),
        }
        with deferred_interrupt():
            try:
                self._folder.note(**{"ended": now(), "result": result, **ended})
            finally:
                self._over = True
                self._folder.close()
                if self.feeder is not None:
                    self.feeder.close()


class Pause:
    """Waits that get longer: what is short is noticed soon; what is long is asked seldom, since that takes the board's time."""

    _LONGEST = 0.1  #: seconds: soon enough for eyes; ten questions a second cost little (benchmarks/telemetry.py)

    def __init__(self, shortest: float) -> None:
        self._shortest = shortest
        self._seconds = shortest

    def wait(self) -> None:
        """Sleep, longer than the last time."""
        time.sleep(self._seconds)
        self._seconds = min(2 * self._seconds, self._LONGEST)

    def reset(self) -> None:
        """More came than was expected."""
        self._seconds = self._shortest


def stop_and_wait(client: Client) -> None:
    """Stop the board's session; back when the step under way is finished."""
    client.stop()
    pause = Pause(_SOON)
    while client.status().state in LIVE:
        pause.wait()


def now() -> str:
    """The time of day as run.json notes it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
