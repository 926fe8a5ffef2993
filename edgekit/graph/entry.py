"""Entry points: a graph and what the runner connects it to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from edgekit.graph.graph import Graph
from edgekit.graph.value import Value


class Role(IntEnum):
    """What a port is for; the numbers are those of the Program file."""

    INPUT = 1
    TARGET = 2
    LOSS = 3
    OUTPUT = 4
    CORRECT = 5
    STEP = 6  #: i32[2]: the session's seed and the steps done
    BOUNDARY = 7  #: array *index* that a prefix makes
    CACHED = 8  #: the same, that a suffix starts from


#: roles whose value the runner writes before a run
FILLED = frozenset({Role.INPUT, Role.TARGET, Role.STEP, Role.CACHED})


@dataclass(frozen=True)
class Port:
    """A value that the runner fills or reads.

    Every element of an i32 input or target must satisfy ``low ≤ x < high`` or ``x == ignore``; ``low == high`` checks nothing.
    """

    role: Role
    value: Value
    index: int = 0
    low: int = 0
    high: int = 0
    ignore: int = 0


@dataclass(frozen=True)
class Entry:
    """One entry point of a Program."""

    graph: Graph
    ports: tuple[Port, ...]
