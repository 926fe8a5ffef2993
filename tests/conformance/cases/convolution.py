"""Convolutions and their gradients: dense, grouped, depthwise, pointwise."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import assume
from hypothesis import strategies as st

from edgekit.graph.op import ShapeError
from edgekit.graph.ops.conv import (
    Algorithm,
    Conv2d,
    Conv2dInputGrad,
    Conv2dWeightGrad,
    Pair,
    Quad,
    window_output,
    winograd_fits,
)
from edgekit.program import Storage
from tests.conformance.case import Case
from tests.conformance.cases.epilogue import Backward, Forward, backwards, drawn_backward, drawn_forward, forwards
from tests.conformance.data import Data


@dataclass(frozen=True)
class Geometry:
    """A convolution's shapes; ``inputs`` and ``outputs`` are channels of one group."""

    batch: int
    size: Pair
    kernel: Pair
    inputs: int
    outputs: int
    groups: int = 1
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    @property
    def window(self) -> tuple[Pair, Quad, Pair, int]:
        return (self.stride, self.padding, self.dilation, self.groups)

    @property
    def out(self) -> Pair:
        return window_output(self.size, self.kernel, self.stride, self.padding, self.dilation)

    @property
    def x(self) -> tuple[int, ...]:
        return (self.batch, *self.size, self.groups * self.inputs)

    @property
    def w(self) -> tuple[int, ...]:
        return (*self.kernel, self.inputs, self.groups * self.outputs)

    @property
    def y(self) -> tuple[int, ...]:
        return (self.batch, *self.out, self.groups * self.outputs)


SAME = (1, 1, 1, 1)
GEOMETRIES = [
    # dense
    Geometry(2, (8, 9), (3, 3), 5, 7, padding=SAME),
    Geometry(1, (15, 15), (3, 3), 3, 32, stride=(2, 2), padding=SAME),
    Geometry(2, (14, 14), (3, 3), 64, 64, padding=SAME),
    Geometry(1, (7, 7), (3, 3), 33, 65, stride=(2, 2), padding=SAME),
    Geometry(1, (23, 24), (7, 7), 3, 16, stride=(2, 2), padding=(3, 3, 3, 3)),
    Geometry(2, (9, 11), (3, 2), 4, 6, stride=(2, 3), padding=(0, 1, 2, 1), dilation=(2, 1)),
    Geometry(1, (5, 5), (5, 5), 8, 4),
    Geometry(1, (1, 30), (1, 5), 6, 9, padding=(0, 0, 2, 2)),
    Geometry(1, (2, 2), (3, 3), 4, 4, padding=(2, 2, 2, 2)),
    Geometry(1, (9, 9), (2, 2), 3, 5, stride=(4, 4)),
    Geometry(1, (13, 17), (3, 4), 2, 3, stride=(4, 6), dilation=(2, 4)),
    Geometry(1, (5, 6), (1, 1), 3, 4, stride=(1 << 28, (1 << 28) - 1), dilation=(1 << 27, 3)),  # absurd, but cheap
    # dense, 3 × 3 with whole vectors of channels: by either algorithm
    Geometry(1, (1, 1), (3, 3), 16, 16, padding=SAME),
    Geometry(2, (3, 4), (3, 3), 32, 32, padding=(0, 1, 2, 1)),
    Geometry(1, (4, 4), (3, 3), 64, 5, padding=SAME),
    Geometry(1, (10, 11), (3, 3), 16, 48, padding=SAME),
    Geometry(2, (9, 12), (3, 3), 32, 40, padding=(0, 1, 2, 1)),
    Geometry(3, (6, 7), (3, 3), 48, 16, padding=(2, 2, 2, 2)),
    Geometry(1, (10, 10), (3, 3), 256, 144, padding=SAME),
    # pointwise
    Geometry(2, (7, 7), (1, 1), 24, 144),
    Geometry(2, (8, 7), (1, 1), 16, 32, stride=(2, 2)),
    Geometry(1, (5, 6), (1, 1), 3, 5, padding=(1, 0, 2, 1)),
    Geometry(2, (4, 4), (1, 1), 160, 40),
    # depthwise
    Geometry(2, (14, 14), (3, 3), 1, 1, 96, padding=SAME),
    Geometry(2, (15, 13), (3, 3), 1, 1, 144, stride=(2, 2), padding=SAME),
    Geometry(1, (9, 8), (3, 3), 1, 1, 5, padding=SAME),
    Geometry(3, (5, 6), (3, 3), 1, 1, 64, padding=(2, 1, 0, 2)),
    Geometry(1, (8, 8), (3, 3), 1, 1, 17, stride=(2, 2), padding=(0, 1, 0, 1)),
    Geometry(2, (10, 10), (5, 5), 1, 1, 40, padding=(2, 2, 2, 2)),
    Geometry(1, (12, 11), (5, 5), 1, 1, 33, stride=(2, 2), padding=(2, 2, 2, 2)),
    Geometry(1, (14, 14), (7, 7), 1, 1, 16, stride=(2, 2), padding=(3, 3, 3, 3)),
    Geometry(1, (9, 10), (3, 3), 1, 1, 8, padding=(2, 2, 2, 2), dilation=(2, 2)),
    Geometry(1, (3, 3), (3, 3), 1, 1, 64),
    Geometry(1, (1, 1), (3, 3), 1, 1, 31, padding=SAME),
    Geometry(1, (7, 7), (3, 3), 1, 1, 20, stride=(3, 3), padding=(0, 2, 1, 0)),
    Geometry(1, (6, 20), (1, 9), 1, 1, 12, padding=(0, 0, 4, 4)),
    Geometry(2, (6, 6), (3, 3), 1, 2, 6, padding=SAME),  # a channel multiplier
    # grouped
    Geometry(2, (7, 8), (3, 3), 4, 3, 5, padding=SAME),
    Geometry(1, (8, 8), (3, 3), 16, 16, 2, stride=(2, 2), padding=SAME),
    Geometry(1, (5, 5), (1, 1), 8, 4, 3),
]
#: whole tiles of windows next to one another inside the image, among others that reach into the padding or the next row
NEIGHBOURS = [
    Geometry(2, (7, 65), (3, 3), 3, 32, stride=(2, 2), padding=SAME),
    Geometry(1, (6, 66), (3, 3), 3, 64, stride=(2, 2), padding=(0, 1, 0, 1)),
    Geometry(2, (11, 68), (3, 2), 4, 32, stride=(1, 2), padding=(3, 0, 2, 3), dilation=(2, 1)),
    Geometry(1, (9, 100), (5, 5), 3, 32, stride=(2, 3), padding=(2, 2, 4, 0)),
    Geometry(1, (5, 61), (1, 3), 16, 32, stride=(3, 1), padding=(1, 1, 2, 0)),
    Geometry(1, (5, 40), (3, 3), 4, 32, padding=SAME, dilation=(1, 2)),
    Geometry(3, (8, 70), (1, 1), 8, 32, stride=(2, 2)),
]
#: the epilogues are tried on one of each kind
KINDS = [
    GEOMETRIES[0],
    Geometry(1, (10, 11), (3, 3), 16, 48, padding=SAME),
    Geometry(2, (4, 5), (1, 1), 12, 37),
    Geometry(2, (6, 7), (3, 3), 1, 1, 37, (2, 1), SAME),
    Geometry(2, (5, 9), (3, 3), 1, 1, 72, padding=SAME),
    GEOMETRIES[-3],
    NEIGHBOURS[0],
]


def algorithms(g: Geometry, *channels: int) -> tuple[Algorithm, ...]:
    """Those that there are, the backend's own choice first."""
    return tuple(Algorithm) if winograd_fits(g.kernel, g.stride, g.dilation, g.groups, *channels) else (Algorithm.AUTO,)


def forward(g: Geometry, extra: Forward, data: Data, algorithm: Algorithm = Algorithm.AUTO) -> Case:
    return extra.case(
        Conv2d(*g.window, extra.act, algorithm), data.floats(g.x), data.floats(g.w, storage=extra.weight), g.y, data
    )


def input_grad(g: Geometry, extra: Backward, data: Data, algorithm: Algorithm = Algorithm.AUTO) -> Case:
    dy, w = data.floats(g.y), data.floats(g.w, storage=extra.weight)
    return extra.case(Conv2dInputGrad(g.size, *g.window, extra.act, algorithm), dy, w, g.x, data)


def weight_grad(g: Geometry, bias: bool, data: Data, algorithm: Algorithm = Algorithm.AUTO) -> Case:
    return Case(Conv2dWeightGrad(g.kernel, *g.window, algorithm), (data.floats(g.x), data.floats(g.y)), (0, 1) if bias else (0,))


def table() -> list[Case]:
    data = Data()
    cases = []
    for g in (*GEOMETRIES, *NEIGHBOURS):
        for weight in (Storage.CONSTANT, Storage.STATE):
            cases += [forward(g, Forward(weight=weight), data, a) for a in algorithms(g, g.inputs)]
            cases += [input_grad(g, Backward(weight=weight), data, a) for a in algorithms(g, g.outputs)]
        cases += [weight_grad(g, bias, data, a) for bias in (False, True) for a in algorithms(g, g.inputs, g.outputs)]
    for g in KINDS:
        cases += [forward(g, extra, data, a) for extra in forwards() for a in algorithms(g, g.inputs)]
        cases += [input_grad(g, extra, data, a) for extra in backwards() for a in algorithms(g, g.outputs)]
    return cases


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    inputs, outputs, groups = draw(
        st.one_of(
            st.tuples(st.integers(1, 40), st.integers(1, 70), st.just(1)),
            st.tuples(st.just(1), st.just(1), st.integers(2, 70)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 5)),
            st.tuples(*[st.integers(1, 4).map(lambda vectors: 16 * vectors)] * 2, st.just(1)),
        )
    )
    kernel = draw(st.one_of(st.just((1, 1)), st.just((3, 3)), st.tuples(st.integers(1, 6), st.integers(1, 6))))
    stride = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    dilation = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    padding = draw(st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 4)] * 4)))
    size = draw(st.tuples(st.integers(1, 18), st.integers(1, 18)))
    geometry = Geometry(draw(st.integers(1, 3)), size, kernel, inputs, outputs, groups, stride, padding, dilation)
    try:
        assert geometry.out
    except ShapeError:
        assume(False)
    return geometry


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data, g = Data(draw(st.integers(0, 1000))), draw(geometries())
    match draw(st.integers(0, 2)):
        case 0:
            return forward(g, draw(drawn_forward()), data, draw(st.sampled_from(algorithms(g, g.inputs))))
        case 1:
            return input_grad(g, draw(drawn_backward()), data, draw(st.sampled_from(algorithms(g, g.outputs))))
        case _:
            return weight_grad(g, draw(st.booleans()), data, draw(st.sampled_from(algorithms(g, g.inputs, g.outputs))))
