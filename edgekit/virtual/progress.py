"""What ``start`` reports while it works; whoever called it draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One thing under way. ``total`` is 0 where nobody knows how much there is."""

    what: str
    done: int = 0
    total: int = 0


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Progress that nobody looks at."""
    del step
