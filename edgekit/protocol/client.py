"""Requests and their responses over any link: stop and wait, with a deadline for each exchange.

A link that is lost is opened again, where that is possible, and the request is sent once more: no request does its work twice.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cbor2
from pydantic import ValidationError
from smp.header import Header
from smp.message import Request
from smp.os_management import EchoWriteRequest, MCUMgrParametersReadRequest, ResetWriteRequest

from edgekit.errors import DeviceError, LinkError, LinkLost
from edgekit.links.deadline import Deadline
from edgekit.links.link import Link
from edgekit.protocol import messages as m
from edgekit.protocol.assembler import Assembler
from edgekit.protocol.faults import response_error
from edgekit.protocol.interrupt import deferred_interrupt

PROTOCOL = 4
SECONDS = 30.0  #: for one exchange: the runner answers between two ops
LOAD_SECONDS = 120.0  #: verifying, packing and, for `start`, reading every label takes longer

PATIENCE = 60.0  #: seconds that a lost link is waited for
_PAUSE = 1.0  #: … between two tries
FILE_SECONDS = 600.0  #: for one file, or until the link is opened again

_VERSIONS = "are edgekit and the runner of one version?"

log = logging.getLogger("edgekit")

R = TypeVar("R", bound=m.Reply)
T = TypeVar("T")


class Restarted(LinkError):
    """The board answers again, but its runner is another one."""


class Client:
    """One method a message. Every one raises LinkError, or what the board's status number stands for.

    ``reopen`` makes another link to the same board; None: a lost link is lost. ``patience`` is how many seconds it is tried.
    """

    def __init__(self, link: Link, reopen: Callable[[], Link] | None = None, patience: float = PATIENCE) -> None:
        self.link = link
        self.instance: int | None = None  #: of the runner that was spoken to first: another one has forgotten what was loaded
        self._reopen = reopen
        self._patience = patience
        self._assembler = Assembler()

    def echo(self, text: str) -> str:
        return self._ask(EchoWriteRequest(d=text), m.Echo).r

    def parameters(self) -> m.Parameters:
        return self._ask(MCUMgrParametersReadRequest(), m.Parameters)

    def reset(self, force: bool = False) -> None:
        """End the board's process, after its answer; ``force`` stops the session that runs first."""
        self._ask(ResetWriteRequest(force=1) if force else ResetWriteRequest(), m.Empty)

    def info(self) -> m.Info:
        return self._ask(m.InfoRequest(), m.Info)

    def load(self, path: str) -> m.Loaded:
        return self._ask(m.LoadRequest(path=path), m.Loaded, LOAD_SECONDS)

    def start(self, request: m.StartRequest) -> m.Started:
        if request.session is None:  # which would be started a second time where the first answer is lost
            request = request.but(token=1 + secrets.randbits(63))
        return self._ask(request, m.Started, LOAD_SECONDS)

    def status(self) -> m.Status:
        return self._ask(m.StatusRequest(), m.Status)

    def records(self, since: int, most: int, session: str | None = None) -> m.Records:
        """Records from a cursor on: of a session that the board keeps, else of the runner since its start."""
        return self._ask(m.RecordsRequest(since=since, max=most, session=session), m.Records)

    def stop(self, session: str | None = None) -> None:
        """Stop what runs; with ``session`` only where it is that one."""
        self._ask(m.StopRequest(session=session), m.Empty)

    def sessions(self) -> list[m.KeptSession]:
        """Every training that the board keeps, the newest last."""
        rows: list[m.KeptSession] = []
        seen = 0
        while True:
            part = self._ask(m.SessionsRequest(skip=seen), m.Sessions)
            rows += part.sessions
            if part.next <= seen or part.next >= part.total:
                return rows
            seen = part.next

    def resume(self, session: str) -> m.Started:
        return self._ask(m.ResumeRequest(session=session), m.Started, LOAD_SECONDS)

    def remove(self, session: str) -> None:
        self._ask(m.RemoveRequest(session=session), m.Empty)

    def shards(self, session: str | None = None) -> m.Window:
        """Which shards the session that runs wants next."""
        return self._ask(m.ShardsRequest(session=session), m.Window)

    def shard_brought(self, number: int, size: int, sha256: bytes, session: str | None = None) -> m.Window:
        """A shard lies where it belongs: the board verifies it, and says what it wants next."""
        return self._ask(m.ShardsRequest(session=session, number=number, bytes=size, sha=sha256), m.Window)

    def fetched(self, session: str) -> None:
        """Tell the board that all of a session that is done is at home: it may go when room is needed."""
        self._ask(m.FetchedRequest(session=session), m.Empty)

    def discard(self, path: str, unused: int) -> bool:
        """Remove what lies at ``path`` in the board's home, unless something needs it; whether it is gone.

        Args:
            path: ``store/…``, ``work/…``, ``sessions/…`` or ``releases/…``.
            unused: seconds for which nobody may have used it.
        """
        return self._ask(m.DiscardRequest(path=path, unused=unused), m.Discarded).removed

    def save(self, path: str) -> int:
        return self._ask(m.SaveRequest(path=path), m.Saved, LOAD_SECONDS).bytes

    def metrics(self, session: int | None = None) -> m.MetricsReply:
        """Of the last evaluation; with ``session`` (``Started.id``) only where it is that one."""
        return self._ask(m.MetricsRequest(id=session), m.MetricsReply)

    def profile(self) -> list[tuple[int, int, int]]:
        """Every op's (number, runs, ns) of the last session that was profiled."""
        rows: list[tuple[int, int, int]] = []
        while True:
            part = self._ask(m.ProfileRequest(since=len(rows)), m.Profile)
            rows += part.ops
            if not part.ops or part.next >= part.total:
                return rows

    def limits(self) -> m.Limits:
        """Measure what the board can do at best; it does nothing else for some tenths of a second."""
        return self._ask(m.LimitsRequest(), m.Limits, LOAD_SECONDS)

    def sensors(self, paths: dict[str, str]) -> None:
        self._ask(m.SensorsRequest.model_validate(paths), m.Empty)

    def put_file(self, local: Path) -> str:
        """Bring a file or a folder to the board; its path there."""
        return self.again(lambda: self.link.put_file(local, Deadline.after(FILE_SECONDS)))

    def missing(self, local: Path) -> int:
        """Bytes of a file or a folder that the board lacks."""
        return self.again(lambda: self.link.missing(local, Deadline.after(FILE_SECONDS)))

    def get_file(self, remote: str, local: Path) -> None:
        """Fetch a file from the board, whole or not at all."""
        self.again(lambda: self.link.get_file(remote, local, Deadline.after(FILE_SECONDS)))

    def board_path(self, local: Path) -> str:
        """Where a file that is ``local`` here lies on the board, whether it is there yet or not."""
        return self.again(lambda: self.link.board_path(local))

    def user_path(self, path: str) -> str:
        """What a user calls ``path`` on the board."""
        return self.again(lambda: self.link.user_path(path))

    def _ask(self, request: Request, reply: type[R], seconds: float = SECONDS) -> R:
        payload = self.again(lambda: self._exchange(request, Deadline.after(seconds)))
        error = response_error(payload, self.link.name)
        if error is not None:
            raise error
        try:
            return reply.model_validate(payload)
        except ValidationError as fault:
            keys = ", ".join(".".join(map(str, e["loc"])) for e in fault.errors())
            raise DeviceError(
                f"{self.link.name}: the runner's answer to {type(request).__name__} does not fit: {keys}",
                _VERSIONS,
            ) from fault

    def again(self, do: Callable[[], T]) -> T:
        """Do something over the link, and once more over new ones where it is lost, until patience ends."""
        patience: Deadline | None = None
        while True:
            try:
                if patience is not None:
                    self._open_again()
                return do()
            except LinkLost as error:
                if self._reopen is None:
                    raise
                if patience is None:
                    log.warning("%s; trying again for %g s", error.message, self._patience)
                    patience = Deadline.after(self._patience)
                if not patience.remaining():
                    raise
                time.sleep(min(_PAUSE, patience.remaining()))

    def _open_again(self) -> None:
        """Another link in place of the lost one.

        Raises:
            LinkLost: not yet.
            Restarted: another runner answers.
        """
        assert self._reopen is not None
        with contextlib.suppress(LinkError):
            self.link.close()
        self.link, self._assembler = self._reopen(), Assembler()
        payload = self._exchange(m.InfoRequest(), Deadline.after(SECONDS))
        if self.instance is not None and payload.get("instance") != self.instance:
            raise Restarted(
                f"{self.link.name}: the board's runner was started anew: the board was switched off, or the runner was ended",
                f"`edgekit sessions {self.link.name}` shows what it keeps, `edgekit resume {self.link.name} ID` goes on from a "
                "session's last checkpoint",
            )
        log.warning("%s: connected again", self.link.name)

    def _exchange(self, request: Request, deadline: Deadline) -> dict[str, Any]:
        with deferred_interrupt():
            self.link.send(bytes(request), deadline)
            while True:
                message = self._assembler.take()
                if message is None:
                    self._assembler.feed(self.link.receive(deadline))
                elif _answers(request, message):
                    return self._payload(message)
                # else: the answer to a request that was given up on; it comes before ours

    def _payload(self, message: bytes) -> dict[str, Any]:
        try:
            payload = cbor2.loads(message[Header.SIZE :])
        except (cbor2.CBORDecodeError, UnicodeDecodeError) as error:
            raise LinkError(f"{self.link.name}: the runner's answer is no CBOR: {error}", _VERSIONS) from error
        if not isinstance(payload, dict):
            raise LinkError(f"{self.link.name}: the runner's answer is no CBOR map but {type(payload).__name__}", _VERSIONS)
        return payload


def _answers(request: Request, message: bytes) -> bool:
    """Whether ``message`` is the response to ``request``: the op is one more; group, sequence and command are the same."""
    asked = bytes(request)
    return message[0] & 0b111 == (asked[0] & 0b111) + 1 and message[4:8] == asked[4:8]
