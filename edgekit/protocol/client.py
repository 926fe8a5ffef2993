"""Requests and their responses over any link: stop and wait, with a deadline for each exchange."""

from __future__ import annotations

from typing import Any, TypeVar

import cbor2
from pydantic import ValidationError
from smp.header import Header
from smp.message import Request
from smp.os_management import EchoWriteRequest, MCUMgrParametersReadRequest, ResetWriteRequest

from edgekit.errors import DeviceError, LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.link import Link
from edgekit.protocol import messages as m
from edgekit.protocol.assembler import Assembler
from edgekit.protocol.faults import response_error
from edgekit.protocol.interrupt import deferred_interrupt

PROTOCOL = 1
SECONDS = 30.0  #: for one exchange: the runner answers between two ops
LOAD_SECONDS = 120.0  #: verifying, packing and, for `start`, reading every label takes longer

R = TypeVar("R", bound=m.Reply)


class Client:
    """One method a message. Every one raises LinkError, or what the board's status number stands for."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._assembler = Assembler()

    def echo(self, text: str) -> str:
        return self._ask(EchoWriteRequest(d=text), m.Echo).r

    def parameters(self) -> m.Parameters:
        return self._ask(MCUMgrParametersReadRequest(), m.Parameters)

    def reset(self, force: bool = False) -> None:
        """End the session host; ``force`` stops the session that runs first, without it that is BUSY."""
        self._ask(ResetWriteRequest(force=1 if force else None), m.Empty)

    def info(self) -> m.Info:
        return self._ask(m.InfoRequest(), m.Info)

    def load(self, path: str) -> m.Loaded:
        return self._ask(m.LoadRequest(path=path), m.Loaded, LOAD_SECONDS)

    def start(self, request: m.StartRequest) -> m.Started:
        return self._ask(request, m.Started, LOAD_SECONDS)

    def status(self) -> m.Status:
        return self._ask(m.StatusRequest(), m.Status)

    def records(self, since: int, most: int) -> m.Records:
        return self._ask(m.RecordsRequest(since=since, max=most), m.Records)

    def stop(self) -> None:
        self._ask(m.StopRequest(), m.Empty)

    def save(self, path: str) -> int:
        return self._ask(m.SaveRequest(path=path), m.Saved, LOAD_SECONDS).bytes

    def metrics(self) -> m.MetricsReply:
        return self._ask(m.MetricsRequest(), m.MetricsReply)

    def profile(self) -> list[tuple[int, int, int]]:
        """Every op's (number, runs, ns) of the last session that was profiled."""
        rows: list[tuple[int, int, int]] = []
        while True:
            part = self._ask(m.ProfileRequest(since=len(rows)), m.Profile)
            rows += part.ops
            if not part.ops or part.next >= part.total:
                return rows

    def sensors(self, paths: dict[str, str]) -> None:
        self._ask(m.SensorsRequest.model_validate(paths), m.Empty)

    def _ask(self, request: Request, reply: type[R], seconds: float = SECONDS) -> R:
        with deferred_interrupt():
            payload = self._exchange(request, Deadline.after(seconds))
        error = response_error(payload)
        if error is not None:
            raise error
        try:
            return reply.model_validate(payload)
        except ValidationError as fault:
            keys = ", ".join(".".join(map(str, e["loc"])) for e in fault.errors())
            raise DeviceError(
                f"{self.link.name}: the runner's answer to {type(request).__name__} does not fit: {keys}",
                "are edgekit and the runner of one version?",
            ) from fault

    def _exchange(self, request: Request, deadline: Deadline) -> dict[str, Any]:
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
            raise LinkError(f"{self.link.name}: the runner's answer is no CBOR: {error}") from error
        if not isinstance(payload, dict):
            raise LinkError(f"{self.link.name}: the runner's answer is no CBOR map but {type(payload).__name__}")
        return payload


def _answers(request: Request, message: bytes) -> bool:
    """Whether ``message`` is the response to ``request``: the op is one more; group, sequence and command are the same."""
    asked = bytes(request)
    return message[0] & 0b111 == (asked[0] & 0b111) + 1 and message[4:8] == asked[4:8]
