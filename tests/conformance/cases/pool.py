"""Pooling and its gradients."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from edgekit.graph.op import ShapeError
from edgekit.graph.ops.conv import Pair, Quad, window_output
from edgekit.graph.ops.pool import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dGrad,
    AvgPool2d,
    AvgPool2dGrad,
    MaxPool2d,
    MaxPool2dGrad,
)
from tests.conformance.case import Case, Operand
from tests.conformance.data import Data

Window = tuple[Pair, Pair, Quad]
#: (size, channels, kernel, stride, padding)
POOLS: list[tuple[Pair, int, Window]] = [
    ((8, 8), 16, ((2, 2), (2, 2), (0, 0, 0, 0))),
    ((9, 7), 5, ((2, 2), (2, 2), (0, 0, 0, 0))),
    ((14, 13), 33, ((3, 3), (2, 2), (1, 1, 1, 1))),
    ((7, 7), 64, ((3, 3), (1, 1), (1, 1, 1, 1))),
    ((7, 8), 3, ((3, 2), (1, 3), (1, 0, 0, 1))),
    ((9, 9), 17, ((2, 2), (4, 3), (0, 0, 0, 0))),
    ((6, 5), 8, ((6, 5), (1, 1), (0, 0, 0, 0))),
    ((1, 1), 7, ((1, 1), (1, 1), (0, 0, 0, 0))),
    ((5, 5), 4, ((2, 2), (2, 2), (0, 1, 0, 1))),
]
#: (size, channels, output)
ADAPTIVE: list[tuple[Pair, int, Pair]] = [
    ((7, 7), 1280, (1, 1)),
    ((1, 1), 5, (1, 1)),
    ((7, 5), 17, (3, 2)),
    ((6, 6), 16, (6, 6)),
    ((3, 4), 8, (7, 5)),
    ((14, 13), 33, (7, 7)),
]


def pools(size: Pair, channels: int, window: Window, dilation: Pair, batch: int, data: Data) -> list[Case]:
    """The four ops of one window; average pooling knows no dilation."""
    kernel, stride, padding = window
    x = (batch, *size, channels)
    y = (batch, *window_output(size, kernel, stride, padding, dilation), channels)
    largest = MaxPool2d(kernel, stride, padding, dilation)
    contents = data.whole(x)
    index = largest.reference(contents.array)[1]
    cases = [Case(largest, (contents,), results) for results in ((0,), (0, 1))]
    cases.append(Case(MaxPool2dGrad(size, kernel, stride, padding, dilation), (data.floats(y), Operand(index))))
    if dilation == (1, 1):
        for count in (False, True):
            cases.append(Case(AvgPool2d(kernel, stride, padding, count), (data.floats(x),)))
            cases.append(Case(AvgPool2dGrad(size, kernel, stride, padding, count), (data.floats(y),)))
    return cases


def adaptive(size: Pair, channels: int, output: Pair, batch: int, data: Data) -> list[Case]:
    forward = Case(AdaptiveAvgPool2d(output), (data.floats((batch, *size, channels)),))
    return [forward, Case(AdaptiveAvgPool2dGrad(size), (data.floats((batch, *output, channels)),))]


def table() -> list[Case]:
    data = Data()
    cases = [pools(size, channels, window, (1, 1), 2, data) for size, channels, window in POOLS]
    cases.append(pools((9, 8), 5, ((3, 2), (2, 1), (1, 1, 1, 1)), (2, 3), 1, data))
    cases += [adaptive(size, channels, output, 2, data) for size, channels, output in ADAPTIVE]
    return list(itertools.chain.from_iterable(cases))


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data = Data(draw(st.integers(0, 1000)))
    small = st.tuples(st.integers(1, 5), st.integers(1, 5))
    size = draw(st.tuples(st.integers(1, 15), st.integers(1, 15)))
    channels, batch = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    if draw(st.booleans()):
        return draw(st.sampled_from(adaptive(size, channels, draw(st.tuples(*[st.integers(1, 9)] * 2)), batch, data)))
    kernel, stride = draw(small), draw(small)
    padding = (*(draw(st.integers(0, kernel[0] // 2)) for _ in "tb"), *(draw(st.integers(0, kernel[1] // 2)) for _ in "lr"))
    try:
        cases = pools(size, channels, (kernel, stride, padding), draw(st.sampled_from([(1, 1), (1, 1), (2, 1)])), batch, data)
    except ShapeError:
        assume(False)
    # a dilated window may see nothing but padding; its maximum means nothing
    assume(all(np.isfinite(c.op.reference(*(o and o.array for o in c.operands))[0]).all() for c in cases))
    return draw(st.sampled_from(cases))
