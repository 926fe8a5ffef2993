"""Losses, softmax and the metric."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from edgekit.graph.ops.function import Reduction
from edgekit.graph.ops.loss import ArgmaxMatch, CrossEntropy, CrossEntropyGrad, NllLoss, NllLossGrad, Softmax, SoftmaxGrad
from tests.conformance.case import Case, Operand
from tests.conformance.data import Data, scalar

Shape = tuple[int, ...]
REDUCTIONS = (Reduction.SUM, Reduction.MEAN)
SCORES: list[Shape] = [(10,), (1, 1), (8, 10), (5, 17), (2, 3, 4, 33), (3, 1000), (300, 2)]
SMOOTHINGS = (0.0, 0.1, 1.0)


def cross_entropy(shape: Shape, reduction: Reduction, ignore: int, smoothing: float, inplace: bool, data: Data) -> list[Case]:
    targets = data.classes(shape[:-1], shape[-1], ignore if shape[-1] > 1 else None)
    attributes = (reduction, ignore if shape[-1] > 1 else -100, smoothing)
    return [
        Case(CrossEntropy(*attributes), (data.floats(shape, 4.0), targets)),
        Case(
            CrossEntropyGrad(*attributes), (data.floats(shape, 4.0), targets, scalar(0.75)), inplace=(0, 0) if inplace else None
        ),
    ]


def nll(shape: Shape, reduction: Reduction, ignore: int, data: Data) -> list[Case]:
    targets = data.classes(shape[:-1], shape[-1], ignore if shape[-1] > 1 else None)
    attributes = (reduction, ignore if shape[-1] > 1 else -100)
    grad = NllLossGrad(*attributes, shape[-1])
    return [Case(NllLoss(*attributes), (data.floats(shape), targets)), Case(grad, (targets, scalar(-1.5)))]


def softmax(shape: Shape, log: bool, over: int | None, data: Data) -> list[Case]:
    x = data.floats(shape, 5.0)
    (y,) = Softmax(log).reference(data.array(shape, 5.0))
    forward = Case(Softmax(log), (x,), inplace=(0, 0) if over == 0 else None)
    backward = Case(SoftmaxGrad(log), (data.floats(shape), Operand(y)), inplace=None if over is None else (0, over))
    return [forward, backward]


def argmax_match(shape: Shape, ignore: int, data: Data) -> Case:
    scores = data.whole(shape)
    targets = data.classes(shape[:-1], shape[-1], ignore if shape[-1] > 1 else None)
    hits = np.argmax(scores.array, axis=-1).astype(np.int32)
    mixed = np.where(np.arange(hits.size).reshape(hits.shape) % 2 == 0, hits, targets.array)
    return Case(ArgmaxMatch(ignore if shape[-1] > 1 else -100), (scores, Operand(np.asarray(mixed, np.int32))))


def table() -> list[Case]:
    data = Data()
    cases: list[Case] = []
    for shape, reduction, smoothing in itertools.product(SCORES, REDUCTIONS, SMOOTHINGS):
        for ignore in (-100, 0):
            cases += cross_entropy(shape, reduction, ignore, smoothing, smoothing == 0.1, data)
    for shape, reduction, ignore in itertools.product(SCORES, REDUCTIONS, (-100, 1)):
        cases += nll(shape, reduction, ignore, data)
    for shape, log, over in itertools.product(SCORES, (False, True), (None, 0, 1)):
        cases += softmax(shape, log, over, data)
    cases += [argmax_match(shape, ignore, data) for shape in SCORES for ignore in (-100, 0)]
    cases.append(Case(Softmax(), (Operand(np.array([[1000, -1000, 999], [-3e38, 0, 3e38]], np.float32)),)))
    cases.append(Case(CrossEntropy(), (Operand(np.array([[900, -900]], np.float32)), Operand(np.array([0], np.int32)))))
    return cases


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    data = Data(draw(st.integers(0, 1000)))
    shape = (*draw(st.lists(st.integers(1, 9), max_size=3)), draw(st.integers(1, 70)))
    reduction, ignore = draw(st.sampled_from(REDUCTIONS)), draw(st.sampled_from([-100, -1, 0, 1]))
    over = draw(st.sampled_from([None, 0, 1]))
    cases = [
        *cross_entropy(shape, reduction, ignore, draw(st.sampled_from(SMOOTHINGS)), over == 0, data),
        *nll(shape, reduction, ignore, data),
        *softmax(shape, draw(st.booleans()), over, data),
        argmax_match(shape, ignore, data),
    ]
    return draw(st.sampled_from(cases))
