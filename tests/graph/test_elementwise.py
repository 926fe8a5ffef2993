"""Scalar functions, broadcasting arithmetic, masks, dropout, affine, reductions: judged by PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.graph.builder import Builder
from edgekit.graph.ops.elementwise import Affine, ApplyMask, Binary, Dropout, Expand, Reduce, Unary, UnaryGrad
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from tests.graph.judge import TORCH, check, node_of, normal, run

POSITIVE = (Function.LOG, Function.SQRT, Function.RSQRT, Function.RECIPROCAL)
shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def argument(fn: Function, shape: tuple[int, ...]):
    x = normal(shape) * 4
    return np.asarray(np.abs(x) + 0.1) if fn in POSITIVE else np.asarray(x)


@pytest.mark.parametrize("fn", list(Function))
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 37)])
def test_unary(fn, shape):
    check(Unary(fn), [argument(fn, shape)], TORCH[fn])


@pytest.mark.parametrize("fn", [f for f in Function if f not in (Function.IDENTITY, Function.NEG)])
def test_unary_gradient_without_a_mask(fn):
    """From the result or the argument, whether or not the function also has a mask."""
    x = argument(fn, (5, 40))
    dy = normal(x.shape, 1)
    t = torch.from_numpy(x.copy()).requires_grad_()
    y = TORCH[fn](t)
    (judged,) = torch.autograd.grad(y, t, torch.from_numpy(dy))
    build = Builder()
    source = build.input("x", x.shape)
    build(Unary(fn), source)
    node = build.graph.nodes[0]
    start = build.input("dy", x.shape)
    (dx,) = Unary(fn).gradient(build, node, start, [True])
    values = run(build.graph, {source: x, start: dy})
    np.testing.assert_allclose(values[dx], judged.numpy(), rtol=1e-11, atol=1e-12)
    assert [type(n.op) for n in build.graph.nodes] == [Unary, UnaryGrad]


@pytest.mark.parametrize(
    ("fn", "kinks"),
    [
        (Function.RELU, [0.0]),
        (Function.RELU6, [0.0, 6.0]),
        (Function.HARDSWISH, [-3.0, 3.0]),
        (Function.HARDSIGMOID, [-3.0, 3.0]),
        (Function.ABS, [0.0]),
    ],
)
def test_kinks_are_pytorchs(fn, kinks):
    check(Unary(fn), [np.array(kinks)], TORCH[fn])


@pytest.mark.parametrize("fn", [Function.SIGMOID, Function.SILU, Function.TANH, Function.GELU])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero(fn, dtype):
    """No overflow and no warning, in the operand's precision."""
    x = np.array([-1000.0, -100.0, -20.0, 20.0, 100.0, 1000.0], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        (y, _) = Unary(fn).reference(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, TORCH[fn](torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-30)


@st.composite
def broadcasting(draw):
    """Two shapes that broadcast: axes dropped from the front, axes of one."""
    full = draw(shapes)

    def part():
        kept = full[draw(st.integers(0, len(full))) :]
        return tuple(draw(st.sampled_from([1, n])) for n in kept)

    return part(), part()


@pytest.mark.parametrize("fn", list(Arithmetic))
@given(pair=broadcasting())
def test_binary(fn, pair):
    a, b = normal(pair[0]), normal(pair[1], 1)
    if fn is Arithmetic.DIV:
        b = np.asarray(np.sign(b) * (np.abs(b) + 0.2))
    judges = [torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum]
    check(Binary(fn), [a, b], judges[fn])


@pytest.mark.parametrize("fn", [Arithmetic.MAXIMUM, Arithmetic.MINIMUM])
def test_ties_share_the_gradient(fn):
    a, b = np.array([1.0, 2.0, 3.0, 0.0]), np.array([1.0, 3.0, 2.0, 0.0])
    check(Binary(fn), [a, b], torch.maximum if fn is Arithmetic.MAXIMUM else torch.minimum)


@given(shapes.filter(bool))
def test_affine(shape):
    check(Affine(), [normal(shape), normal(shape[-1:], 1), normal(shape[-1:], 2)], lambda x, scale, shift: x * scale + shift)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_reduce(shape, data):
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    fn, keepdims = data.draw(st.sampled_from(Reduction)), data.draw(st.booleans())
    judge = {Reduction.SUM: torch.sum, Reduction.MEAN: torch.mean, Reduction.MAX: torch.amax}[fn]
    op = Reduce(fn, sum(1 << a for a in axes), keepdims)
    # whole numbers, so that the largest one often stands twice
    x = np.round(normal(tuple(shape)) * 2) if fn is Reduction.MAX else normal(tuple(shape))
    check(op, [x], lambda t: judge(t, dim=sorted(axes), keepdim=keepdims))


@given(broadcasting())
def test_expand(pair):
    target = np.broadcast_shapes(*pair)
    check(Expand.to(target), [normal(pair[0])], lambda x: x.expand(target))


def test_apply_mask():
    x = normal((3, 11))
    mask = normal((3, 11), 1) > 0
    np.testing.assert_allclose(ApplyMask(2.5).reference(x, mask)[0], x * mask * 2.5)


def mix(z: int) -> int:
    """The specification's words, with Python's integers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


@given(st.floats(0.0, 0.9375, width=32), st.integers(0, 100), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_dropout_is_as_specified(p, stream, seed, step):
    golden = 0x9E3779B97F4A7C15
    key = mix(((seed % 2**64 << 32 | step % 2**32) + golden) % 2**64)
    key = mix((key + golden * (stream + 1)) % 2**64)
    kept = [(mix((key + golden * (i + 1)) % 2**64) >> 40) / 2**24 >= p for i in range(40)]
    x = normal((4, 10))
    y, mask = Dropout(p, stream).reference(x, np.array([seed, step], np.int32))
    np.testing.assert_array_equal(mask.ravel(), kept)
    np.testing.assert_allclose(y, np.where(mask, x / (1 - p), 0))


def test_dropout_gradient_follows_the_mask():
    op = Dropout(0.3, 2)
    x, dy, step = normal((50, 40)), normal((50, 40), 1), np.array([7, 3], np.int32)
    build = Builder()
    node, known = node_of(build, op, [x, step])
    start = build.input("dy", x.shape)
    dx, nothing = op.gradient(build, node, start, [True, False])
    assert nothing is None
    values = run(build.graph, {**known, start: dy})
    kept = values[node.outputs[0]] != 0
    np.testing.assert_allclose(values[dx], np.where(kept, dy / 0.7, 0))
    assert math.isclose(kept.mean(), 0.7, abs_tol=0.04)
