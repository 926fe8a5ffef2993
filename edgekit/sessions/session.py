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

from edgekit.errors import EdgekitError, InternalError, LinkError
from edgekit.links import Deadline
from edgekit.program import Program
from edgekit.protocol.client import Client
from edgekit.protocol.faults import device_error
from edgekit.protocol.interrupt import deferred_interrupt
from edgekit.protocol.messages import Started, State, Status
from edgekit.sessions.checkpoint import read_checkpoint
from edgekit.sessions.memory import Memory
from edgekit.telemetry import Record, RunFolder, Summary, summarize

log = logging.getLogger("edgekit")

FINAL = "final.ekc"
_AT_ONCE = 16  #: records asked for in one message; the board gives fewer where they do not fit
_FETCH_SECONDS = 600.0
_LIVE = 0.02  #: seconds by which a record may be late: often enough for eyes, seldom enough for benchmarks
_SOON = 0.002  #: … and the end of something that was asked to end


@dataclass(frozen=True)
class Result:
    """How a session ended. ``state`` is "done" or "stopped"; ``checkpoint`` is None where it could not be written."""

    state: State
    steps: int
    planned: int
    samples: int
    dropped: int  #: samples of each epoch that fill no whole batch
    summary: Summary
    folder: Path
    checkpoint: Path | None


class Session:
    """A training session on a board. Iterate for its records; leave the loop early and the board stops.

    Iterating again starts with the first record again.
    """

    def __init__(self, client: Client, program: Program, memory: Memory, started: Started, folder: RunFolder) -> None:
        self.program = program
        self.memory = memory
        self.folder = folder.path
        self.records: list[Record] = []
        self.planned = started.steps
        self.samples = started.samples
        self.dropped = started.dropped
        self._client = client
        self._folder = folder
        self.lost = 0  #: records that came too fast to be fetched: the board keeps only the latest
        self._arena = max(e.arena_bytes for name, e in program.entries.items() if name in ("train_step", "update"))
        self._cursor = started.next
        self._state: State = "running"
        self._error: EdgekitError | None = None
        self.checkpoint: Path | None = None  #: the final state, once the session is over
        self._over = False
        if started.dropped:
            log.warning("%d samples of each epoch fill no whole batch and are left out", started.dropped)

    def __iter__(self) -> Iterator[Record]:
        """Every record, the last ones as the board makes them.

        Raises:
            DivergedError: the loss left the numbers.
            DataError: the data does; the message names file and sample.
            LinkError: the board is gone.
            StorageError: the run's folder, or the board's disk, is full.
        """
        given = 0
        pause = Pause(_LIVE)
        try:
            while True:
                while given < len(self.records):
                    given += 1
                    yield self.records[given - 1]
                if self._over:
                    break
                if self._pull():
                    pause.reset()
                elif not self._over:
                    pause.wait()
        finally:
            if not self._over:
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
            self._client.stop()
            pause = Pause(_SOON)
            while not self._over:
                if not self._pull():
                    pause.wait()
        except LinkError as error:
            self._lost(error)
            raise

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The trained arrays by their names in the program: as they are now, or were at the end.

        Raises:
            DeviceError: the session failed, so there is nothing to fetch.
        """
        if self._over and self.checkpoint is None:
            raise self._error or InternalError("the session left no checkpoint")
        path = self.checkpoint or self._save(self.folder / "now.ekc")
        return read_checkpoint(path).state(self.program)

    def write_back(self, model: Any) -> None:
        """Put what the board trained into the user's own ``torch.nn.Module``, BatchNorm unfolded.

        Raises:
            InputError: it is not the model that the program was compiled from.
        """
        from edgekit.frontends.torch.write_back import write_back  # torch takes seconds to import

        write_back(self.program, self.state(), model)

    def _pull(self) -> bool:
        """Fetch the records that are new and note the end; whether there was anything."""
        with deferred_interrupt():  # records that came are noted, and the folder of a session that ended gets its result
            try:
                reply = self._client.records(self._cursor, _AT_ONCE)
            except LinkError as error:
                self._lost(error)
                raise
            if reply.first > self._cursor:
                self.lost += reply.first - self._cursor
                log.warning("%d records came too fast to be fetched", reply.first - self._cursor)
            self._cursor = reply.next
            new = [Record.from_wire(row, self._arena) for row in reply.records]
            try:
                for record in new:
                    self._folder.append(record)
                    self.records.append(record)
            except EdgekitError as error:
                self._abandon(error)
                raise
            if not new and reply.state != "running":
                self._finish(self._client.status())
            return bool(new)

    def _finish(self, status: Status) -> None:
        """The board is done: fetch the final state and complete the run's folder."""
        self._state = status.state
        if status.state == "failed":
            self._error = device_error(status.rc, status.why)
        else:
            try:
                self.checkpoint = self._save(self.folder / FINAL)
            except EdgekitError as error:
                self._error = error
        self._complete(self._error)

    def _save(self, path: Path) -> Path:
        remote = self._client.link.board_path(path)
        self._client.save(remote)
        self._client.link.get_file(remote, path, Deadline.after(_FETCH_SECONDS))
        return path

    def _abandon(self, error: EdgekitError) -> None:
        """The run's folder cannot be written any more: stop the board and let it be."""
        self._error = error
        self._state = "stopped"
        with contextlib.suppress(EdgekitError):
            stop_and_wait(self._client)
        with contextlib.suppress(EdgekitError):
            self._complete(error)

    def _lost(self, error: LinkError) -> None:
        self._error = error
        self._state = "failed"
        with contextlib.suppress(EdgekitError):
            self._complete(error)

    def _complete(self, error: EdgekitError | None) -> None:
        result = {
            "state": self._state,
            "steps": self.records[-1].step if self.records else 0,
            "lost_records": self.lost,
            "error": None if error is None else error.message,
            "summary": asdict(summarize(self.records)),
        }
        try:
            self._folder.note(ended=now(), result=result)
        finally:
            self._over = True
            self._folder.close()


class Pause:
    """Waits that get longer while nothing happens: every question takes time from the board and from its host."""

    _LONGEST = 0.2

    def __init__(self, shortest: float) -> None:
        self._shortest = shortest
        self._seconds = shortest

    def wait(self) -> None:
        """Sleep, longer than the last time."""
        time.sleep(self._seconds)
        self._seconds = min(2 * self._seconds, self._LONGEST)

    def reset(self) -> None:
        """Something happened."""
        self._seconds = self._shortest


def stop_and_wait(client: Client) -> None:
    """Stop the board's session; back when the step under way is finished."""
    client.stop()
    pause = Pause(_SOON)
    while client.status().state == "running":
        pause.wait()


def now() -> str:
    """The time of day as run.json notes it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
