"""Linear layers and their gradients."""

from __future__ import annotations

from hypothesis import strategies as st

from edgekit.graph.ops.linear import Linear, LinearInputGrad, LinearWeightGrad
from edgekit.program import Storage
from tests.conformance.case import Case
from tests.conformance.cases.epilogue import Backward, Forward, backwards, drawn_backward, drawn_forward, forwards
from tests.conformance.data import Data

Rows = tuple[int, ...]

#: (rows, inputs, outputs): around the edges of register tiles and cache blocks, and those of real networks
SIZES: list[tuple[Rows, int, int]] = [
    ((), 5, 3),
    ((1,), 1, 1),
    ((1,), 1280, 10),
    ((8,), 64, 1000),
    ((3,), 7, 33),
    ((13,), 16, 31),
    ((14,), 17, 32),
    ((15,), 33, 48),
    ((29,), 64, 65),
    ((2, 7, 7), 96, 24),
    ((2, 14, 14), 24, 144),
    ((1, 3, 1, 5), 9, 16),
    ((100,), 300, 100),
    ((6,), 520, 130),
    ((4,), 30, 1100),
]


def forward(rows: Rows, k: int, n: int, extra: Forward, data: Data) -> Case:
    return extra.case(Linear(extra.act), data.floats((*rows, k)), data.floats((k, n), storage=extra.weight), (*rows, n), data)


def input_grad(rows: Rows, k: int, n: int, extra: Backward, data: Data) -> Case:
    dy, w = data.floats((*rows, n)), data.floats((k, n), storage=extra.weight)
    return extra.case(LinearInputGrad(extra.act), dy, w, (*rows, k), data)


def weight_grad(rows: Rows, k: int, n: int, bias: bool, data: Data) -> Case:
    return Case(LinearWeightGrad(), (data.floats((*rows, k)), data.floats((*rows, n))), (0, 1) if bias else (0,))


def table() -> list[Case]:
    data = Data()
    cases = []
    for rows, k, n in SIZES:
        for weight in (Storage.CONSTANT, Storage.STATE, Storage.ARENA):
            cases.append(forward(rows, k, n, Forward(weight=weight), data))
            cases.append(input_grad(rows, k, n, Backward(weight=weight), data))
        cases += [weight_grad(rows, k, n, bias, data) for bias in (False, True)]
    for rows, k, n in [((5,), 20, 37), ((2, 3, 7), 8, 16), ((29,), 400, 48), ((29,), 32, 400)]:
        cases += [forward(rows, k, n, extra, data) for extra in forwards()]
        cases += [input_grad(rows, k, n, extra, data) for extra in backwards()]
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data = Data(draw(st.integers(0, 1000)))
    rows = tuple(draw(st.lists(st.integers(1, 40), max_size=2)))
    k, n = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    match draw(st.integers(0, 2)):
        case 0:
            return forward(rows, k, n, draw(drawn_forward()), data)
        case 1:
            return input_grad(rows, k, n, draw(drawn_backward()), data)
        case _:
            return weight_grad(rows, k, n, draw(st.booleans()), data)
