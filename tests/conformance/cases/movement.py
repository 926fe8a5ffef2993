"""Ops that move data: permute, slice, its transpose, concat; of every element type that they may meet."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from edgekit.graph.ops.shape import Concat, Permute, Slice, Unslice
from tests.conformance.case import Case, Operand
from tests.conformance.data import Data

Shape = tuple[int, ...]

PERMUTATIONS: list[tuple[Shape, tuple[int, ...]]] = [
    ((5,), (0,)),
    ((33, 17), (1, 0)),
    ((64, 64), (1, 0)),
    ((2, 3, 5), (0, 2, 1)),
    ((2, 5, 6, 7), (0, 3, 1, 2)),
    ((2, 7, 5, 6), (0, 2, 3, 1)),
    ((2, 5, 6, 7), (0, 1, 2, 3)),
    ((3, 4, 2, 5), (3, 2, 1, 0)),
    ((2, 3, 1, 4, 2, 3), (5, 0, 3, 1, 4, 2)),
]
#: (shape, axis, start, length, step)
SLICES: list[tuple[Shape, int, int, int, int]] = [
    ((9,), 0, 0, 9, 1),
    ((9,), 0, 2, 3, 2),
    ((4, 33), 1, 0, 16, 1),
    ((4, 33), 1, 5, 17, 1),
    ((4, 33), 0, 1, 2, 2),
    ((2, 6, 5, 24), 3, 0, 6, 1),
    ((2, 6, 5, 24), 1, 1, 3, 2),
    ((2, 6, 5, 24), 0, 1, 1, 1),
    ((4, 96, 128), 0, 1, 3, 1),
    ((2, 3, 4, 2, 3, 2), 2, 1, 2, 2),
]
CONCATS: list[tuple[Shape, int, tuple[int, ...]]] = [
    ((1,), 0, (1, 2)),
    ((2, 3, 3, 1), 3, (5, 16, 7)),
    ((2, 3, 3, 4), 1, (1, 2)),
    ((2, 3, 3, 4), 0, (2, 1, 3)),
    ((4, 1), 1, (1, 2, 3, 4, 5, 6, 7, 8)),
]


def table() -> list[Case]:
    data = Data()
    cases = []
    for kind, (shape, perm) in itertools.product(KINDS, PERMUTATIONS):
        cases.append(Case(Permute.of(*perm), (operand(kind, shape, data),)))
    for kind, (shape, axis, start, length, step) in itertools.product(KINDS, SLICES):
        cases.append(Case(Slice(axis, start, length, step), (operand(kind, shape, data),)))
        cases.append(unslice(kind, shape, axis, start, length, step, data))
    for kind, (shape, axis, lengths) in itertools.product(KINDS, CONCATS):
        cases.append(concat(kind, shape, axis, lengths, data))
    return cases


KINDS = ("f32", "i32", "u8")


def operand(kind: str, shape: Shape, data: Data) -> Operand:
    if kind == "f32":
        return data.floats(shape)
    return data.integers(shape, -99, 99) if kind == "i32" else data.u8(shape)


def unslice(kind: str, shape: Shape, axis: int, start: int, length: int, step: int, data: Data) -> Case:
    """The transpose of the slice of an array of ``shape``."""
    part = (*shape[:axis], length, *shape[axis + 1 :])
    return Case(Unslice(axis, start, shape[axis], step), (operand(kind, part, data),))


def concat(kind: str, shape: Shape, axis: int, lengths: tuple[int, ...], data: Data) -> Case:
    parts = [operand(kind, (*shape[:axis], n, *shape[axis + 1 :]), data) for n in lengths]
    return Case(Concat(axis), (*parts, *[None] * (8 - len(parts))))


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data, kind = Data(draw(st.integers(0, 1000))), draw(st.sampled_from(KINDS))
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=5)))
    axis = draw(st.integers(0, len(shape) - 1))
    step = draw(st.integers(1, 3))
    start = draw(st.integers(0, shape[axis] - 1))
    length = draw(st.integers(1, (shape[axis] - 1 - start) // step + 1))
    match draw(st.integers(0, 3)):
        case 0:
            return Case(Permute.of(*draw(st.permutations(range(len(shape))))), (operand(kind, shape, data),))
        case 1:
            return Case(Slice(axis, start, length, step), (operand(kind, shape, data),))
        case 2:
            return unslice(kind, shape, axis, start, length, step, data)
        case _:
            return concat(kind, shape, axis, tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=8))), data)
