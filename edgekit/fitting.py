"""A program that fits a memory budget: activations computed twice, then micro-batches whose gradients are accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from edgekit.compiler.recompute import BUDGET
from edgekit.errors import InputError
from edgekit.program import Program
from edgekit.program.inspect import size

#: Of a step's FLOPs, spent on activations once more where the budget asks for it: a third is about one more forward pass.
_MORE = 0.35


@dataclass(frozen=True)
class Way:
    """How a step over a batch is computed: in ``accumulate`` runs of ``batch`` samples; ``recompute`` is a fraction of FLOPs."""

    batch: int
    accumulate: int
    recompute: float = BUDGET


def fit(program: Program, make: Callable[[Way], Program], limit: int) -> Program:
    """``program`` if it takes at most ``limit`` bytes, else the first of other ways to compute its steps, which take more time.

    Raises:
        InputError: none fits; the message names the smallest budget that would do.
    """
    if limit < 1:
        raise InputError(f"the memory budget is {limit} bytes", "give a size, as 64MB")
    least = memory_bytes(program)
    ways = _ways(Way(program.header.batch, program.header.accumulate))
    while memory_bytes(program) > limit:
        way = next(ways, None)
        if way is None:
            raise InputError(
                f"the smallest program for this model, batch and update takes {size(least)}, and {size(limit)} may be used",
                f"give a budget of {least} bytes or more, or update less (`--update last:2`, or channel fractions)",
            )
        program = make(way)
        least = min(least, memory_bytes(program))
    return program


def memory_bytes(program: Program) -> int:
    """What a program keeps in a board's memory: arena, state and constants. The runner and its kernels' scratch come on top."""
    header = program.header
    return header.arena_bytes + header.state_bytes + header.constants_bytes


def _ways(whole: Way) -> Iterator[Way]:
    """The whole batch with more recomputation; then halves, thirds …, each with little and with more."""
    yield replace(whole, recompute=_MORE)
    for batch in range(whole.batch - 1, 0, -1):
        if whole.batch % batch == 0:
            way = Way(batch, whole.accumulate * (whole.batch // batch))
            yield from (way, replace(way, recompute=_MORE))
