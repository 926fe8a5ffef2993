"""Ops over int8 arrays, and the gradients that read int8 operands."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from edgekit.graph.ops.conv import Conv2dInputGrad, Conv2dWeightGrad
from edgekit.graph.ops.elementwise import Expand
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import LinearInputGrad, LinearWeightGrad
from edgekit.graph.ops.quantized import Dequantize, QAdd, QConv2d, QMean, Quantize
from edgekit.graph.ops.shape import Concat, Permute, Slice, Unslice
from edgekit.graph.ops.update import SgdUpdate
from edgekit.program import Storage
from tests.conformance.case import Case, Operand
from tests.conformance.cases.convolution import GEOMETRIES, SAME, Geometry, geometries
from tests.conformance.cases.update import BLOCKS, OPTIMIZERS, vector
from tests.conformance.data import Data, scalar

Shape = tuple[int, ...]
CONSTANT, STATE = Storage.CONSTANT, Storage.STATE
SHAPES: list[Shape] = [(1,), (37,), (5, 17), (2, 3, 16), (3, 5, 7, 8), (1, 40, 41, 33)]
#: of an input, a scale and zero point; then those of the result, which cut off on both sides, on neither and on one
QUANTS = [(0.05, -3.0), (0.02, 11.0), (3.0, 0.0), (0.01, -128.0)]
#: what no compiler writes: results are any, but exactly these
ABSURD = [(0.0, 0.0), (np.inf, np.nan), (np.nan, 1e30), (-1.0, -1e30), (1e-30, 0.5)]


def quant(pair: tuple[float, float]) -> Operand:
    return Operand(np.array(pair, np.float32), CONSTANT)


def scales(count: int, data: Data, largest: float = 0.02) -> Operand:
    return Operand(np.asarray(np.abs(data.array((count,))) * largest + 1e-4, np.float32), CONSTANT)


def supported(g: Geometry) -> bool:
    """Dense or depthwise."""
    return g.groups == 1 or g.inputs == g.outputs == 1


def conv(g: Geometry, y: tuple[float, float], bias: bool, mask: bool, weight: Storage, data: Data) -> Case:
    o = g.w[3]
    operands = (
        data.i8(g.x),
        data.i8(g.w, storage=weight),
        scales(o, data),
        quant(QUANTS[0]),
        quant(y),
        data.integers((o,), -(1 << 12), 1 << 12) if bias else None,
        None,
    )
    return Case(QConv2d(*g.window), operands, (0, 1) if mask else (0,))


def in_pieces(g: Geometry, own: int, data: Data) -> Case:
    """A dense convolution with the weights of ``own`` input channels in one array and the others in another."""
    case = conv(g, QUANTS[1], True, True, CONSTANT, data)
    (kh, kw, c, o), (x, _, *others) = g.w, case.operands
    pieces = data.i8((kh, kw, own, o), storage=STATE), data.i8((kh, kw, c - own, o), storage=CONSTANT)
    return replace(case, operands=(x, pieces[0], *others[:-1], pieces[1]))


def cropped(data: Data) -> list[Case]:
    """Bands of an image: rows and columns left out, also where as many are added on the other side."""
    cases = []
    for kernel, padding in ((3, (-2, 1, 1, 1)), (1, (-1, 1, 0, 0)), (3, (1, -3, -2, 0)), (1, (-2, -3, 0, 0))):
        operands = (data.i8((2, 9, 7, 4)), data.i8((kernel, kernel, 4, 5)), scales(5, data), quant(QUANTS[0]), quant(QUANTS[1]))
        cases.append(Case(QConv2d(padding=padding), (*operands, data.integers((5,), -99, 99), None), (0, 1)))
    return cases


def in_place(g: Geometry, mask: bool, data: Data) -> Case:
    """A depthwise convolution over its own input."""
    return replace(conv(g, QUANTS[1], True, mask, CONSTANT, data), inplace=(0, 0))


def real(g: Geometry, bias: bool, data: Data) -> Case:
    """Without a result's scale: float32."""
    case = conv(g, QUANTS[1], bias, False, CONSTANT, data)
    return replace(case, op=replace(case.op, real=True), operands=(*case.operands[:4], None, case.operands[5], None))  # type: ignore[call-arg]


def saturated(data: Data) -> Case:
    """Sums that leave int32 with the bias."""
    bias = np.array([2**31 - 1, -(2**31), 5], np.int32)
    operands = (data.i8((2, 3, 3, 40)), data.i8((3, 3, 40, 3)), scales(3, data), quant((1e-7, 4.0)), quant(QUANTS[1]))
    return Case(QConv2d(padding=(1, 1, 1, 1)), (*operands, Operand(bias), None), (0, 1))


def blocks(data: Data) -> list[Case]:
    """Rows enough for every tile of whole blocks of channels, halves of them and less; images that threads share in place."""
    dense = [Geometry(2, (6, 7), (1, 1), 12, outputs) for outputs in (8, 16, 24, 40, 48, 61)]
    tall = Geometry(3, (8, 2), (5, 3), 1, 1, 24, padding=(2, 2, 1, 1))
    depthwise = [Geometry(3, (9, 10), (3, 3), 1, 1, 40, padding=SAME), tall]
    cases = [conv(g, QUANTS[1], True, False, CONSTANT, data) for g in (*dense, *depthwise)]
    return cases + [in_place(g, False, data) for g in depthwise]


def rescaled(data: Data) -> list[Case]:
    """Factors of which the product's low word counts, up to 1 and more, and some so small that hardly a bit of it is left."""
    results = (1e-3, -128.0), (2e-4, 127.0), (1e5, -128.0), (1e5, 127.0)
    return [conv(g, y, True, True, CONSTANT, data) for y in results for g in (GEOMETRIES[19], GEOMETRIES[20])]


def elementwise(shape: Shape, a: tuple[float, float], y: tuple[float, float], mask: bool, data: Data) -> list[Case]:
    results = (0, 1) if mask else (0,)
    add = (data.i8(shape), data.i8(shape), quant(a), quant(QUANTS[1]), quant(y))
    cases = [
        Case(Quantize(), (data.floats(shape, 4.0), quant(y)), results),
        Case(Dequantize(), (data.i8(shape), quant(a))),
        Case(QAdd(), add, results),
        Case(QAdd(), (data.i8(shape), *add[1:]), results, inplace=(0, 1)),
    ]
    return [c for c in cases if np.isfinite(a).all() or not isinstance(c.op, Dequantize)]


def mean(shape: Shape, y: tuple[float, float], mask: bool, data: Data) -> Case:
    return Case(QMean(), (data.i8(shape), quant(QUANTS[0]), quant(y)), (0, 1) if mask else (0,))


def gradients(g: Geometry, data: Data) -> list[Case]:
    dy, addend, saved = data.floats(g.y), data.floats(g.x), data.bits(g.x)
    w, scale = data.i8(g.w, storage=STATE), scales(g.w[3], data)
    back, weights = Conv2dInputGrad(g.size, *g.window), Conv2dWeightGrad(g.kernel, *g.window)
    over = [Case(back, (dy, w, None, None, scale), inplace=(0, 0))] if g.groups > 1 and g.stride == (1, 1) and g.x == g.y else []
    return [
        *over,
        Case(back, (dy, w, None, None, scale)),
        Case(replace(back, act=Function.RELU), (dy, w, addend, saved, scale), inplace=(0, 2)),
        Case(weights, (data.i8(g.x), dy, quant(QUANTS[0])), (0, 1)),
    ]


def linear_gradients(rows: Shape, k: int, n: int, storage: Storage, data: Data) -> list[Case]:
    dy, w, scale = data.floats((*rows, n)), data.i8((k, n), storage=storage), scales(n, data)
    return [
        Case(LinearInputGrad(), (dy, w, None, None, scale)),
        Case(LinearInputGrad(Function.RELU), (dy, w, data.floats((*rows, k)), data.bits((*rows, k)), scale)),
        Case(LinearWeightGrad(), (data.i8((*rows, k)), dy, quant(QUANTS[1])), (0, 1)),
    ]


def update(param: Shape, grad: Shape, op: SgdUpdate, channel: str, whole: Operand, data: Data, size: float = 1.0) -> Case:
    operands = (
        whole,
        data.floats(grad, size),
        data.floats(grad, size, STATE) if op.momentum else None,
        vector(channel, grad, data),
        vector(channel, grad, data),
        scalar(0.375) if channel else None,
        scales(param[-1], data, 0.5),
        Operand(np.array([7, 12345], np.int32)),
    )
    return Case(replace(op, stream=3), operands, results=())


def updates(data: Data) -> list[Case]:
    cases = []
    for (param, grad), op in itertools.product((b for b in BLOCKS if b[0]), OPTIMIZERS):
        cases.append(update(param, grad, op, "", data.i8(param, storage=STATE), data))
        integers = data.integers(param, -(1 << 20), 1 << 20)
        cases.append(update(param, grad, op, "channel", replace(integers, storage=STATE), data, 100.0))
    for whole in (data.i8((1, 1, 33, 18), storage=STATE), data.floats((33, 18), storage=STATE)):
        case = update(whole.array.shape, (*whole.array.shape[:-2], 9, 18), SgdUpdate(lr=0.1, start=20), "", whole, data)
        integers = whole.array.dtype == np.int8
        cases.append(
            case if integers else replace(case, op=replace(case.op, stream=0), operands=(*case.operands[:6], None, None))
        )  # type: ignore[call-arg]
    ends = np.array([127, -127, 2**31 - 1, -(2**31) + 1], np.int64)
    plain = SgdUpdate(lr=1.0)
    cases.append(update((4,), (4,), plain, "", Operand(ends.clip(-127, 127).astype(np.int8), STATE), data, 1e3))
    cases.append(update((4,), (4,), plain, "", Operand(ends.astype(np.int32), STATE), data, 1e30))
    return cases


def moves(data: Data) -> list[Case]:
    return [
        Case(Permute.of(0, 2, 3, 1), (data.i8((2, 3, 9, 17)),)),
        Case(Permute.of(1, 0, 2), (data.i8((5, 6, 7)),)),
        Case(Permute.of(1, 0), (data.i8((70, 131)),)),
        Case(Slice(3, 0, 5), (data.i8((2, 4, 4, 13)),)),
        Case(Slice(1, 1, 2, 2), (data.i8((3, 7, 5)),)),
        Case(Unslice(1, 1, 9, 3), (data.i8((3, 2, 5)),)),
        Case(Concat(3), (data.i8((1, 3, 3, 8)), data.i8((1, 3, 3, 5)))),
        Case(Expand.to((4, 5, 6)), (data.i8((5, 1)),)),
        Case(Expand.to((4, 5, 6)), (data.i8((6,)),)),
    ]


def table() -> list[Case]:
    data = Data()
    cases = [saturated(data), *blocks(data), *rescaled(data), *cropped(data), *updates(data), *moves(data)]
    for g in filter(supported, GEOMETRIES):
        for bias, mask, weight in ((False, False, STATE), (True, True, CONSTANT)):
            cases.append(conv(g, QUANTS[1], bias, mask, weight, data))
        cases.append(real(g, True, data))
        cases += [in_pieces(g, own, data) for own in {1, g.w[2] // 2, g.w[2] - 1} if g.groups == 1 and 0 < own < g.w[2]]
        if g.groups > 1 and g.stride == (1, 1) and g.x == g.y:
            cases += [in_place(g, mask, data) for mask in (False, True)]
            cases += gradients(g, data)
    for y in (*QUANTS, *ABSURD):
        cases += [conv(g, y, True, True, CONSTANT, data) for g in (GEOMETRIES[0], GEOMETRIES[18])]
        cases += [mean((2, 5, 7, 19), y, True, data), *elementwise((5, 17), QUANTS[0], y, True, data)]
    for shape, mask in itertools.product(SHAPES, (False, True)):
        cases += elementwise(shape, QUANTS[0], QUANTS[1], mask, data)
        cases += [mean(shape, QUANTS[2], mask, data)] if len(shape) == 4 else []
    cases += elementwise((5, 17), ABSURD[1], QUANTS[1], True, data)
    for g in (*GEOMETRIES[:2], GEOMETRIES[9], GEOMETRIES[16], GEOMETRIES[19], *GEOMETRIES[-4:]):
        cases += gradients(g, data)
    for storage in (CONSTANT, STATE):
        cases += linear_gradients((), 5, 3, storage, data) + linear_gradients((2, 7, 7), 96, 24, storage, data)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.025, 0.035, 1e30], np.float32)
    cases.append(Case(Quantize(), (Operand(special), quant((0.01, 3.0))), (0, 1)))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data, flag = Data(draw(st.integers(0, 1000))), st.booleans()
    y = draw(st.sampled_from([*QUANTS, *ABSURD]))
    match draw(st.integers(0, 3)):
        case 0 | 1:
            g = draw(geometries().filter(supported))
            if g.groups == 1 and g.w[2] > 1 and draw(flag):
                return in_pieces(g, draw(st.integers(1, g.w[2] - 1)), data)
            return conv(g, y, draw(flag), draw(flag), draw(st.sampled_from([CONSTANT, STATE])), data)
        case 2:
            shape = tuple(draw(st.lists(st.integers(1, 20), min_size=1, max_size=4)))
            return draw(st.sampled_from(elementwise(shape, draw(st.sampled_from(QUANTS)), y, draw(flag), data)))
        case _:
            return draw(st.sampled_from(gradients(draw(geometries().filter(supported)), data)))
