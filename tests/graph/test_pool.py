"""Pooling, judged by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from edgekit.graph.op import ShapeError
from edgekit.graph.ops.conv import window_output
from edgekit.graph.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tests.graph.judge import check, nchw, nhwc, normal


@st.composite
def windows(draw, dilated: bool):
    """(size, kernel, stride, padding, dilation); a padding is at most half the window, so each one sees the input."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride = draw(pair), draw(pair)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    top, left = (draw(st.integers(0, k // 2)) for k in kernel)
    bottom, right = (draw(st.integers(0, k // 2)) for k in kernel)
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    padding = (top, bottom, left, right)
    try:
        window_output(size, kernel, stride, padding, dilation)
    except ShapeError:
        assume(False)
    return size, kernel, stride, padding, dilation


def padded(x: torch.Tensor, padding: tuple[int, int, int, int], fill: float) -> torch.Tensor:
    top, bottom, left, right = padding
    return F.pad(nchw(x), (left, right, top, bottom), value=fill)


@given(windows(dilated=True), st.booleans())
def test_max_pool(window, ties):
    size, kernel, stride, padding, dilation = window
    x = normal((2, *size, 3))
    x = np.round(x) if ties else x
    op = MaxPool2d(kernel, stride, padding, dilation)
    judge = lambda t: nhwc(F.max_pool2d(padded(t, padding, -torch.inf), kernel, stride, 0, dilation))  # noqa: E731
    if np.isinf(op.reference(x)[0]).any():
        assume(False)  # a dilated window that sees nothing but padding
    check(op, [x], judge)


def test_max_pool_index_is_the_first_among_equals():
    _, index = MaxPool2d((2, 3), (1, 1)).reference(np.array([[0.0, 5, 5], [5, 5, 0]]).reshape(1, 2, 3, 1))
    assert index.tolist() == [[[[1]]]]


@given(windows(dilated=False), st.booleans())
def test_avg_pool(window, count_padding):
    size, kernel, stride, padding, _ = window

    def judge(x):
        total = F.avg_pool2d(padded(x, padding, 0.0), kernel, stride) * (kernel[0] * kernel[1])
        inside = F.avg_pool2d(padded(torch.ones_like(x), padding, 0.0), kernel, stride) * (kernel[0] * kernel[1])
        return nhwc(total / (kernel[0] * kernel[1] if count_padding else inside))

    op = AvgPool2d(kernel, stride, padding, count_padding)
    check(op, [normal((2, *size, 3))], judge)
    if padding[0] == padding[1] and padding[2] == padding[3]:
        direct = lambda x: nhwc(F.avg_pool2d(nchw(x), kernel, stride, padding[::2], count_include_pad=count_padding))  # noqa: E731
        check(op, [normal((2, *size, 3))], direct)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (5, 8)])
@pytest.mark.parametrize("output", [(1, 1), (3, 2), (7, 7), (8, 10)])
def test_adaptive_avg_pool(size, output):
    check(AdaptiveAvgPool2d(output), [normal((2, *size, 3))], lambda x: nhwc(F.adaptive_avg_pool2d(nchw(x), output)))
