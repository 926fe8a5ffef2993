"""What a flash tells while it goes on, whatever link carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from edgekit.links.progress import Moved

S = TypeVar("S", covariant=True)


@dataclass(frozen=True)
class Started(Generic[S]):
    """A step begins: the ``number``-th of ``total``."""

    step: S
    number: int
    total: int


@dataclass(frozen=True)
class Done(Generic[S]):
    """A step went well; ``detail`` is what it found."""

    step: S
    detail: str


@dataclass(frozen=True)
class GoesOn:
    """An upload that was cut goes on: ``done`` of ``total`` bytes were on the board."""

    done: int
    total: int


#: ``str(step)`` is its text.
Event = Started[object] | Done[object] | GoesOn | Moved
