"""The cases that every backend is tested with: a family of ops a module, each with a table and a way to draw more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis.strategies import SearchStrategy

from tests.conformance.case import Case
from tests.conformance.cases import convolution, elementwise, loss, movement, pool, product, quantized, update


@dataclass(frozen=True)
class Family:
    """``table`` makes the representative cases, ``drawn`` draws awkward ones."""

    name: str
    table: Callable[[], list[Case]]
    drawn: SearchStrategy[Case]


FAMILIES = [
    Family(module.__name__.rpartition(".")[2], module.table, module.drawn())
    for module in (product, convolution, elementwise, movement, pool, loss, update, quantized)
]
