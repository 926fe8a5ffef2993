"""Ops that write state: SGD, by itself and within a product, accumulation, fill; and the norm and coefficient of clipping."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from edgekit.graph.ops.update import Accumulate, ClipCoefficient, Fill, LinearSgd, SgdUpdate, SumSquares
from edgekit.program import Storage
from tests.conformance.case import Case, Operand
from tests.conformance.data import Data, scalar

Shape = tuple[int, ...]
#: (parameter, gradient): whole, and leading blocks of the input channels
BLOCKS: list[tuple[Shape, Shape]] = [
    ((), ()),
    ((1,), (1,)),
    ((37,), (37,)),
    ((33, 18), (33, 18)),
    ((33, 18), (8, 18)),
    ((3, 3, 20, 17), (3, 3, 5, 17)),
    ((3, 3, 1, 40), (3, 3, 1, 40)),
    ((3, 3, 4, 6), (2, 3, 2, 5)),
    ((70, 70), (70, 70)),
]
#: (rows, inputs, outputs) of products: one tile, several blocks, rows shared between threads, rows in several blocks
PRODUCTS: list[tuple[Shape, int, int]] = [
    ((1,), 1, 1),
    ((8,), 64, 1000),
    ((13,), 17, 31),
    ((2, 7, 7), 96, 24),
    ((300,), 130, 300),
    ((520,), 130, 136),
]
#: what the optional vectors may be: absent, over the last axis, of the gradient's shape
VECTORS = ("", "channel", "whole")


def vector(kind: str, grad: Shape, data: Data) -> Operand | None:
    if not kind:
        return None
    return data.floats(grad[-1:] if kind == "channel" else grad, storage=Storage.CONSTANT)


def sgd(param: Shape, grad: Shape, op: SgdUpdate, factor: str, offset: str, clip: bool, data: Data) -> Case:
    velocity = data.floats(grad, storage=Storage.STATE) if op.momentum else None
    operands = (
        data.floats(param, storage=Storage.STATE),
        data.floats(grad),
        velocity,
        vector(factor, grad, data),
        vector(offset, grad, data),
        scalar(0.375) if clip else None,
    )
    return Case(op, operands, results=())


def linear_sgd(
    rows: Shape, inputs: int, outputs: int, more: int, op: SgdUpdate, factor: bool, offset: bool, bias: bool, data: Data
) -> Case:
    """``more`` rows of the parameter are not trained."""
    param, grad = (1, 1, inputs + more, outputs), (1, 1, inputs, outputs)
    operands = (
        data.floats((*rows, inputs)),
        data.floats((*rows, outputs)),
        data.floats(param, storage=Storage.STATE),
        data.floats(grad, storage=Storage.STATE) if op.momentum else None,
        vector("channel" * factor, grad, data),
        vector("channel" * offset, grad, data),
    )
    fused = LinearSgd(op.lr, op.momentum, op.weight_decay, op.nesterov)
    return Case(fused, operands, results=(0,) if bias else ())


def sum_squares(shape: Shape, factor: str, previous: bool, data: Data) -> Case:
    return Case(SumSquares(), (data.floats(shape), vector(factor, shape, data), scalar(2.5) if previous else None))


def accumulate(shape: Shape, data: Data) -> Case:
    return Case(Accumulate(), (data.floats(shape, storage=Storage.STATE), data.floats(shape)), results=())


def fill(shape: Shape, value: float, data: Data) -> Case:
    return Case(Fill(value), (data.floats(shape, storage=Storage.STATE),), results=())


OPTIMIZERS = [
    SgdUpdate(lr, momentum, decay, nesterov)
    for lr, momentum, decay, nesterov in itertools.product((0.1,), (0.0, 0.9), (0.0, 0.01), (False, True))
    if momentum or not nesterov
]


def table() -> list[Case]:
    data = Data()
    cases = [
        sgd(*BLOCKS[5], op, f, o, clip, data) for op in OPTIMIZERS for f in VECTORS for o in VECTORS for clip in (False, True)
    ]
    for (param, grad), op in itertools.product(BLOCKS, OPTIMIZERS):
        channel = "channel" if grad else ""
        cases += [sgd(param, grad, op, "", "", False, data), sgd(param, grad, op, channel, channel, True, data)]
    for shape in dict.fromkeys(grad for _, grad in BLOCKS):
        cases += [sum_squares(shape, f, p, data) for f in VECTORS if f != "channel" or shape for p in (False, True)]
        cases += [accumulate(shape, data), fill(shape, 0.1, data), fill(shape, 0.0, data)]
    cases.append(sum_squares((100_000,), "", True, data))
    for op, f, o, bias in itertools.product(OPTIMIZERS, (False, True), (False, True), (False, True)):
        cases.append(linear_sgd((2, 3), 9, 37, 4, op, f, o, bias, data))
    for (rows, inputs, outputs), op in itertools.product(PRODUCTS, (OPTIMIZERS[0], OPTIMIZERS[-1])):
        cases += [linear_sgd(rows, inputs, outputs, more, op, False, False, True, data) for more in (0, 3)]
    for total in (0.0, 1e-12, 0.5, 4.0, 1e6):
        cases += [Case(ClipCoefficient(limit), (scalar(total),)) for limit in (1.0, 0.1)]
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data = Data(draw(st.integers(0, 1000)))
    param = tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
    grad = tuple(draw(st.integers(1, n)) for n in param) if draw(st.booleans()) else param
    kinds = st.sampled_from(VECTORS)
    match draw(st.integers(0, 5)):
        case 0 | 1:
            op = replace(draw(st.sampled_from(OPTIMIZERS)), lr=draw(st.sampled_from([0.5, 0.01])))
            return sgd(param, grad, op, draw(kinds), draw(kinds), draw(st.booleans()), data)
        case 2:
            return sum_squares(param, draw(kinds), draw(st.booleans()), data)
        case 3:
            return accumulate(param, data)
        case 4:
            small = st.integers(1, 40)
            flags = (draw(st.booleans()) for _ in range(3))
            rows = (draw(st.integers(1, 200)),)
            return linear_sgd(
                rows, draw(small), draw(small), draw(st.integers(0, 3)), draw(st.sampled_from(OPTIMIZERS)), *flags, data
            )
        case _:
            return fill(param, float(np.float32(draw(st.floats(-9, 9, width=32)))), data)
