"""Which nodes keep samples apart: only those may be cached for a sample, or run for some samples at a time."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compiler.by_sample import by_sample
from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.op import Op
from edgekit.graph.ops.elementwise import Binary, Reduce, Unary
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.shape import Concat, Permute, Slice
from edgekit.graph.ops.update import SgdUpdate

BATCH = 2
RELU = Unary(Function.RELU)


def kept(op: Op, *others: np.ndarray | None) -> bool:
    """Whether ``op`` of an activation, and of constants, is among what keeps samples apart."""
    build = Builder()
    x = build.input("x", (BATCH, 3, 4))
    first = build(RELU, x)
    operands = [None if array is None else build.constant(f"c{i}", array.astype(np.float32)) for i, array in enumerate(others)]
    y = build(op, first, *operands)
    build.graph.outputs.append(y)
    found = list(by_sample(Entry(build.graph, (Port(Role.INPUT, x), Port(Role.OUTPUT, y))), BATCH))
    assert found[0].op == RELU
    return len(found) == 2


@pytest.mark.parametrize(
    ("op", "others"),
    [
        (Reduce(Reduction.MEAN, 0b001, keepdims=True), ()),
        (Permute.of(1, 0, 2), ()),
        (Slice(0, 0, 1), ()),
        (Concat(0), (np.ones((2, 3, 4)),)),
        (Concat(1), (np.ones((2, 1, 4)),)),
        (Binary(Arithmetic.ADD), (np.ones((2, 3, 4)),)),
        (Binary(Arithmetic.ADD), (np.ones((2, 1, 1)),)),
        (Linear(), (np.ones((4, 4)), np.ones(4), np.ones((2, 3, 4)))),
    ],
    ids=["mean", "permute", "slice", "concat", "own column", "own addend", "own number", "own residual"],
)
def test_what_depends_on_the_place_in_the_batch(op: Op, others: tuple[np.ndarray | None, ...]) -> None:
    assert not kept(op, *others)


@pytest.mark.parametrize(
    ("op", "others"),
    [
        (Reduce(Reduction.MEAN, 0b110, keepdims=True), ()),
        (Permute.of(0, 2, 1), ()),
        (Slice(1, 0, 1), ()),
        (Binary(Arithmetic.ADD), (np.ones((1, 3, 4)),)),
        (Binary(Arithmetic.ADD), (np.ones((3, 4)),)),
        (Binary(Arithmetic.ADD), (np.ones(()),)),
        (Linear(), (np.ones((4, 4)), np.ones(4), None)),
    ],
    ids=["mean", "permute", "slice", "one for all", "fewer axes", "number", "weights"],
)
def test_what_is_the_same_for_every_sample(op: Op, others: tuple[np.ndarray | None, ...]) -> None:
    assert kept(op, *others)


def test_what_the_entry_changes_is_not_fixed() -> None:
    """A state that an update of the same entry writes is another one in the next step."""
    for mutates in (False, True):
        build = Builder()
        x = build.input("x", (BATCH, 3))
        w = build.state("w", np.ones((3, 3)))
        y = build(Linear(), x, w, None)
        if mutates:
            build.emit(SgdUpdate(), w, build.constant("dw", np.ones((3, 3))), results=())
        found = list(by_sample(Entry(build.graph, (Port(Role.INPUT, x), Port(Role.OUTPUT, y))), BATCH))
        assert len(found) == (0 if mutates else 1)
