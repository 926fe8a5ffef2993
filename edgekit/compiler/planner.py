"""Arena offsets: buffers that are in use at the same time must not overlap (the problem of dynamic storage allocation).

Greedy placement by several orders, each buffer at the lowest gap that fits; then a search that places earlier what came out
highest. The best is taken; the search ends at the liveness lower bound, which no plan can beat.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.compiler.lifetimes import Buffer, buffers, lower_bound
from edgekit.graph.graph import Graph
from edgekit.graph.value import Value
from edgekit.program.writer import Placement

_ROUNDS = 60  #: of the search
_Order = Callable[[Buffer], tuple[int, ...]]
_ORDERS: tuple[_Order, ...] = (
    lambda b: (-b.nbytes, b.start),
    lambda b: (-b.nbytes * (b.end - b.start + 1), b.start),
    lambda b: (b.start - b.end, -b.nbytes),
    lambda b: (b.start, -b.end),
    lambda b: (-b.end, b.start),
)


@dataclass(frozen=True)
class MemoryPlan:
    """Where a graph's values lie, and how good that is."""

    placement: Placement
    lower_bound: int


def plan_memory(graph: Graph) -> MemoryPlan:
    """Place the arena values of a graph in its order of execution."""
    pieces = buffers(graph)
    bound = lower_bound(pieces, len(graph.nodes))
    offsets = place(pieces, bound)
    where: dict[Value, int] = {v: at for b, at in zip(pieces, offsets, strict=True) for v in b.values}
    return MemoryPlan(Placement(where, peak(pieces, offsets)), bound)


def place(pieces: Sequence[Buffer], bound: int) -> list[int]:
    """An offset for each buffer; ``bound`` is where the search may stop."""
    best: list[int] = []
    best_peak: int | None = None
    best_order: list[int] = []
    for key in _ORDERS:
        order = sorted(range(len(pieces)), key=lambda i: key(pieces[i]))
        offsets = _first_fit(pieces, order)
        top = peak(pieces, offsets)
        if best_peak is None or top < best_peak:
            best, best_peak, best_order = offsets, top, order
        if best_peak <= bound:
            return best
    order, offsets = best_order, best
    for _ in range(_ROUNDS):
        highest = max(range(len(pieces)), key=lambda i: offsets[i] + pieces[i].nbytes)
        order = [highest, *(i for i in order if i != highest)]
        offsets = _first_fit(pieces, order)
        top = peak(pieces, offsets)
        if best_peak is None or top < best_peak:
            best, best_peak = offsets, top
        if best_peak <= bound:
            break
    return best


def peak(pieces: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """The arena that these offsets need."""
    return max((at + b.nbytes for b, at in zip(pieces, offsets, strict=True)), default=0)


def _first_fit(pieces: Sequence[Buffer], order: Sequence[int]) -> list[int]:
    """Place in this order, each at the lowest offset where it overlaps nothing placed that is in use at the same time."""
    offsets = [0] * len(pieces)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end of bytes, start, end), sorted by offset
    for i in order:
        b = pieces[i]
        at = 0
        for low, high, start, end in placed:
            if start <= b.end and b.start <= end:
                if low - at >= b.nbytes:
                    break
                at = max(at, high)
        offsets[i] = at
        bisect.insort(placed, (at, at + b.nbytes, b.start, b.end))
    return offsets
