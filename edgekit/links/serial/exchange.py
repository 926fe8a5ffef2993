"""Requests over a line that may lose or damage any frame: each is sent again until it is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import cbor2
from smp.header import Header
from smp.message import Request

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.serial.line import Line

FIRST_WAIT = 0.5  #: seconds before a request is sent again; twice as long each time
LONGEST_WAIT = 5.0

Answer = Mapping[str, Any]


class Waiting:
    """When to send again."""

    def __init__(self) -> None:
        self._seconds = FIRST_WAIT
        self._due = time.monotonic() + FIRST_WAIT

    def left(self, deadline: Deadline) -> float:
        """Seconds until then, or until the deadline."""
        return max(0.0, min(self._due - time.monotonic(), deadline.remaining()))

    def over(self) -> bool:
        """Whether it is time; the next time is later then."""
        if time.monotonic() < self._due:
            return False
        self._seconds = min(2 * self._seconds, LONGEST_WAIT)
        self._due = time.monotonic() + self._seconds
        return True


def ask(line: Line, request: Request, deadline: Deadline) -> Answer:
    """One request and its answer.

    Raises:
        LinkLost: no answer in time, or the port is gone.
    """
    message = bytes(request)
    line.send(message, deadline)
    waiting = Waiting()
    while deadline.remaining():
        answer = line.receive(waiting.left(deadline))
        if answer is not None and answers(message, answer):
            return content(line, answer)
        if answer is None and waiting.over():
            line.send(message, deadline)
    raise deadline.expired(f"{line.name}: the board")


def answers(request: bytes, message: bytes) -> bool:
    """Whether a message answers a request: the op is one more; group, sequence and command are the same."""
    return len(message) >= Header.SIZE and message[0] & 0b111 == (request[0] & 0b111) + 1 and message[4:8] == request[4:8]


def content(line: Line, message: bytes) -> Answer:
    """An answer's map."""
    try:
        answer = cbor2.loads(message[Header.SIZE :])
    except (cbor2.CBORDecodeError, UnicodeDecodeError) as error:
        raise LinkError(f"{line.name}: the board's answer is no CBOR: {error}") from error
    if not isinstance(answer, dict):
        raise LinkError(f"{line.name}: the board's answer is no CBOR map but {type(answer).__name__}")
    return answer


def refusal(answer: Answer) -> int | None:
    """What the board refuses with: the group's own code, or mcumgr's, negative; None: it does not."""
    error = answer.get("err")
    if error is None:
        return None
    return int(error["rc"]) if error["group"] != 0 else -int(error["rc"])


class Window:
    """Requests that are on their way, in the order of their sending, as many as the board has room for."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._sent: list[tuple[bytes, int]] = []

    @property
    def empty(self) -> bool:
        return not self._sent

    def has_room(self, size: int) -> bool:
        """Whether ``size`` bytes more may be on the line; one request always may."""
        return not self._sent or sum(bytes_ for _, bytes_ in self._sent) + size <= self._line.window

    def send(self, request: Request, deadline: Deadline) -> None:
        message = bytes(request)
        self._line.send(message, deadline)
        self._sent.append((message, len(self._line.frame(message))))

    def take(self, deadline: Deadline) -> Answer | None:
        """The answer to one of them, those before it being lost; None: they are all given up on.

        Raises:
            LinkLost: nothing comes until the deadline, or the port is gone.
        """
        waiting = Waiting()
        while not waiting.over():
            message = self._line.receive(waiting.left(deadline))
            for place in self._places(message):
                del self._sent[: place + 1]
                assert message is not None
                return content(self._line, message)
            if not deadline.remaining():
                raise deadline.expired(f"{self._line.name}: the board")
        self._sent.clear()
        return None

    def clear(self) -> None:
        """Give up on what is on its way."""
        self._sent.clear()

    def _places(self, message: bytes | None) -> Iterator[int]:
        if message is not None:
            yield from (place for place, (request, _) in enumerate(self._sent) if answers(request, message))
