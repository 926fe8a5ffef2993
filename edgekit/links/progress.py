"""What a link tells while it moves a big file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Moved:
    """A transfer moved on: of the file ``name``, ``done`` of ``total`` bytes are there, those of earlier tries included."""

    name: str
    done: int
    total: int


#: Called now and then in a transfer.
Progress = Callable[[Moved], None]


def silent(moved: Moved) -> None:
    """Tell nobody."""
    del moved
