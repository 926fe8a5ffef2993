"""Scalar functions, masks, dropout, broadcasting arithmetic, affine, reductions, expansion."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from edgekit.graph.ops.elementwise import Affine, ApplyMask, Binary, Dropout, Expand, Reduce, Unary, UnaryGrad
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.program import Storage
from tests.conformance.case import Case, Operand
from tests.conformance.cases.epilogue import MASKED, saved_for
from tests.conformance.data import Data

Shape = tuple[int, ...]
POSITIVE = (Function.LOG, Function.SQRT, Function.RSQRT, Function.RECIPROCAL)
DIFFERENTIATED = [f for f in Function if f is not Function.IDENTITY]

#: sizes around vectors and bytes of bits
SHAPES: list[Shape] = [(), (1,), (7,), (8,), (17,), (3, 5), (2, 31), (4, 64), (2, 3, 5, 9), (2, 2, 3, 2, 5, 3), (5000,)]

BROADCASTS: list[tuple[Shape, Shape]] = [
    ((), ()),
    ((33,), ()),
    ((), (2, 9)),
    ((2, 5, 6, 19), (19,)),
    ((19,), (2, 5, 6, 19)),
    ((2, 5, 6, 16), (2, 1, 1, 16)),
    ((2, 1, 1, 16), (2, 5, 6, 16)),
    ((2, 5, 6, 16), (2, 5, 6, 1)),
    ((3, 1), (1, 17)),
    ((2, 1, 3, 1, 5), (4, 1, 6, 1)),
    ((2, 3, 2, 1, 3, 5), (2, 1, 2, 4, 1, 5)),
    ((70, 70), (70, 70)),
]

#: (shape, axes): leading, trailing, inner and several axes
REDUCTIONS: list[tuple[Shape, tuple[int, ...]]] = [
    ((1,), (0,)),
    ((1000,), (0,)),
    ((6, 33), (0,)),
    ((6, 33), (1,)),
    ((2, 7, 5, 40), (1, 2)),
    ((2, 7, 5, 40), (0, 1, 2)),
    ((2, 7, 5, 40), (0, 3)),
    ((2, 7, 5, 9), (0, 1, 2, 3)),
    ((3, 4, 5, 2, 3, 2), (1, 3, 5)),
    ((64, 1, 17), (1,)),
    ((5000, 3), (0,)),
]


def unary(fn: Function, shape: Shape, mask: bool, inplace: bool, data: Data) -> Case:
    x = data.positive(shape) if fn in POSITIVE else data.floats(shape, 4.0)
    x.array.flat[: x.array.size // 5] = 1.0 if fn in POSITIVE else 0.0
    return Case(Unary(fn), (x,), (0, 1) if mask and fn in MASKED else (0,), (0, 0) if inplace else None)


def unary_grad(fn: Function, shape: Shape, over: int | None, data: Data) -> Case:
    dy = data.floats(shape)
    saved = data.positive(shape) if fn in POSITIVE else saved_for(fn, False, shape, data)
    return Case(UnaryGrad(fn), (dy, saved), inplace=None if over is None else (0, over))


def apply_mask(scale: float, shape: Shape, inplace: bool, data: Data) -> Case:
    return Case(ApplyMask(scale), (data.floats(shape), data.bits(shape)), inplace=(0, 0) if inplace else None)


def dropout(p: float, stream: int, shape: Shape, mask: bool, inplace: bool, data: Data) -> Case:
    step = data.integers((2,), -(2**31), 2**31 - 1)
    return Case(Dropout(p, stream), (data.floats(shape), step), (0, 1) if mask else (0,), (0, 0) if inplace else None)


def binary(fn: Arithmetic, a: Shape, b: Shape, over: int | None, data: Data, storage: Storage = Storage.ARENA) -> Case:
    left = data.whole(a) if fn in (Arithmetic.MAXIMUM, Arithmetic.MINIMUM) else data.floats(a)
    right = data.positive(b) if fn is Arithmetic.DIV else data.floats(b, storage=storage)
    whole = np.broadcast_shapes(a, b)
    fits = over is not None and (a, b)[over] == whole and (over == 0 or right.storage is Storage.ARENA)
    return Case(Binary(fn), (left, right), inplace=(0, over) if over is not None and fits else None)


def affine(shape: Shape, act: Function, extra: bool, inplace: bool, storage: Storage, data: Data) -> Case:
    vectors = [data.floats(shape[-1:], storage=storage) for _ in range(2)]
    results = (0, 1) if extra and act in MASKED else (0, 2) if extra and act is not Function.IDENTITY else (0,)
    return Case(Affine(act), (data.floats(shape, 3.0), *vectors), results, (0, 0) if inplace else None)


def reduce(fn: Reduction, shape: Shape, axes: tuple[int, ...], keepdims: bool, data: Data) -> Case:
    return Case(Reduce(fn, sum(1 << a for a in axes), keepdims), (data.floats(shape),))


def expand(source: Operand, shape: Shape) -> Case:
    return Case(Expand.to(shape), (source,))


def table() -> list[Case]:
    data = Data()
    cases = []
    for shape, fn in itertools.product(SHAPES, Function):
        cases.append(unary(fn, shape, mask=len(shape) % 2 == 0, inplace=len(shape) % 3 == 0, data=data))
    for shape, fn in itertools.product(SHAPES, DIFFERENTIATED):
        cases.append(unary_grad(fn, shape, (None, 0, 1)[len(shape) % 3], data))
    for shape in SHAPES:
        cases += [apply_mask(s, shape, inplace, data) for s, inplace in ((1.0, False), (2.5, True))]
        cases += [dropout(0.25, 3, shape, True, False, data), dropout(0.1, 0, shape, False, True, data)]
        cases += [unary(f, shape, True, True, data) for f in MASKED]
    cases.append(dropout(0.0, 1, (50,), True, False, data))
    for (a, b), fn, over in itertools.product(BROADCASTS, Arithmetic, (None, 0, 1)):
        cases.append(binary(fn, a, b, over, data))
    cases.append(binary(Arithmetic.MUL, (4, 9), (9,), None, data, Storage.CONSTANT))
    cases.append(binary(Arithmetic.ADD, (4, 9), (9,), None, data, Storage.STATE))
    for shape in [s for s in SHAPES if s]:
        for act in (Function.IDENTITY, Function.RELU, Function.RELU6, Function.HARDSWISH, Function.SILU):
            for storage, extra, inplace in ((Storage.CONSTANT, True, False), (Storage.STATE, False, True)):
                cases.append(affine(shape, act, extra, inplace, storage, data))
    for (shape, axes), fn, keepdims in itertools.product(REDUCTIONS, Reduction, (False, True)):
        cases.append(reduce(fn, shape, axes, keepdims, data))
    for a, b in BROADCASTS:
        whole = np.broadcast_shapes(a, b)
        cases += [expand(data.floats(a), whole), expand(data.integers(b, -9, 9), whole)]
        cases.append(expand(data.u8(a), whole))
    return cases


@st.composite
def _broadcasting(draw: st.DrawFn) -> tuple[Shape, Shape]:
    whole = draw(_shapes)
    sides = []
    for _ in range(2):
        kept = whole[draw(st.integers(0, len(whole))) :]
        sides.append(tuple(n if draw(st.booleans()) else 1 for n in kept))
    return sides[0], sides[1]


_shapes = st.lists(st.integers(1, 20), max_size=4).map(tuple)
_some = _shapes.filter(bool)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data = Data(draw(st.integers(0, 1000)))
    flag = st.booleans()
    over = draw(st.sampled_from([None, 0, 1]))
    match draw(st.integers(0, 7)):
        case 0:
            return unary(draw(st.sampled_from(Function)), draw(_shapes), draw(flag), draw(flag), data)
        case 1:
            return unary_grad(draw(st.sampled_from(DIFFERENTIATED)), draw(_shapes), over, data)
        case 2:
            return apply_mask(draw(st.sampled_from([1.0, 0.5, 1.25])), draw(_shapes), draw(flag), data)
        case 3:
            p = draw(st.integers(0, 15)) / 16
            return dropout(p, draw(st.integers(0, 9)), draw(_shapes), draw(flag), draw(flag), data)
        case 4:
            return binary(draw(st.sampled_from(Arithmetic)), *draw(_broadcasting()), over, data)
        case 5:
            act = draw(st.sampled_from(tuple(Function)[:9]))
            return affine(draw(_some), act, draw(flag), draw(flag), draw(st.sampled_from(Storage)), data)
        case 6:
            shape = draw(_some)
            axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
            return reduce(draw(st.sampled_from(Reduction)), shape, tuple(axes), draw(flag), data)
        case _:
            a, b = draw(_broadcasting())
            return expand(data.floats(a), np.broadcast_shapes(a, b))
