"""One point in time for a whole operation, however many waits it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgekit.errors import LinkLost

_SLOW = "try again; `edgekit doctor DEVICE` looks at the whole way to the board"


@dataclass(frozen=True)
class Deadline:
    """``seconds`` is what was granted, ``end`` when it is over on the monotonic clock."""

    seconds: float
    end: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline ``seconds`` from now."""
        return cls(seconds, time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, 0 when over."""
        return max(0.0, self.end - time.monotonic())

    def expired(self, what: str) -> LinkTimeout:
        """The error that says that ``what`` took too long."""
        return LinkTimeout(f"{what}: no answer within {self.seconds:g} s", _SLOW)


class LinkTimeout(LinkLost):
    """The board did not answer in time."""
