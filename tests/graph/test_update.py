"""Optimizer steps, accumulation and clipping, judged by PyTorch; and the normalisation that folding removes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgekit.graph.op import ShapeError
from edgekit.graph.ops.linear import LinearWeightGrad
from edgekit.graph.ops.norm import BatchNorm
from edgekit.graph.ops.update import Accumulate, ClipCoefficient, Fill, LinearSgd, SgdUpdate, SumSquares
from edgekit.graph.value import Type
from tests.graph.judge import normal


@pytest.mark.parametrize(
    ("momentum", "decay", "nesterov"),
    [c for c in itertools.product([0.0, 0.9], [0.0, 0.1], [False, True]) if c[0] or not c[2]],
)
def test_sgd_is_torchs(momentum, decay, nesterov):
    """Five steps of a whole tensor."""
    start = normal((3, 4))
    tensor = torch.from_numpy(start.copy()).requires_grad_()
    judge = torch.optim.SGD([tensor], lr=0.1, momentum=momentum, weight_decay=decay, nesterov=nesterov)
    op = SgdUpdate(0.1, momentum, decay, nesterov)
    param, velocity = start, np.zeros((3, 4)) if momentum else None
    for step in range(5):
        grad = normal((3, 4), step + 1)
        tensor.grad = torch.from_numpy(grad)
        judge.step()
        after = op.reference(param, grad, velocity, *[None] * 5)
        param, velocity = after if momentum else (*after, None)
        np.testing.assert_allclose(param, tensor.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_of_a_block_with_everything(nesterov):
    """factor, offset and clip, on the leading block; the rest stays."""
    param, grad, velocity = normal((2, 5, 4)), normal((2, 3, 4), 1), normal((2, 3, 4), 2)
    factor, offset, clip = normal((4,), 3), normal((2, 3, 4), 4), np.array(0.5)
    kept = param.copy()
    after, v = SgdUpdate(0.1, 0.9, 0.01, nesterov).reference(param, grad, velocity, factor, offset, clip, None, None)
    g = 0.5 * factor * grad + 0.01 * (param[:, :3] - offset)
    v_expected = 0.9 * velocity + g
    step = g + 0.9 * v_expected if nesterov else v_expected
    np.testing.assert_allclose(v, v_expected)
    np.testing.assert_allclose(after[:, :3], param[:, :3] - 0.1 * step)
    np.testing.assert_array_equal(after[:, 3:], param[:, 3:])
    np.testing.assert_array_equal(param, kept)


def test_a_product_with_its_step_is_both():
    """Of the leading rows; the rest stays."""
    x, dy, param, velocity = normal((2, 4, 3)), normal((2, 4, 5), 1), normal((1, 1, 6, 5), 2), normal((1, 1, 3, 5), 3)
    factor, offset = normal((5,), 4), normal((5,), 5)
    dw, db = LinearWeightGrad().reference(x, dy, None)
    step = SgdUpdate(0.1, 0.9, 0.01, True).reference(param, dw.reshape(1, 1, 3, 5), velocity, factor, offset, *[None] * 3)
    found = LinearSgd(0.1, 0.9, 0.01, True).reference(x, dy, param, velocity, factor, offset)
    for a, b in zip(found, (db, *step), strict=True):
        np.testing.assert_array_equal(a, b)
    (vector,) = LinearSgd().infer(Type((4, 3)), Type((4, 5)), Type((6, 5)), None, None, None)
    assert vector == Type((5,))
    for wrong in (Type((6, 4)), Type((2, 5)), Type((5,)), Type((2, 6, 5)), Type((6, 6))):
        with pytest.raises(ShapeError):
            LinearSgd().infer(Type((4, 3)), Type((4, 5)), wrong, None, None, None)


def test_sgd_of_a_scalar():
    after, v = SgdUpdate(0.1, 0.9).reference(np.array(2.0), np.array(3.0), np.array(1.0), *[None] * 5)
    assert (after.shape, v.shape) == ((), ())
    np.testing.assert_allclose([after, v], [2 - 0.1 * 3.9, 3.9])


def test_sgd_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="no leading block"):
        SgdUpdate().infer(Type((2, 3)), Type((2, 4)), *[None] * 6)
    with pytest.raises(ShapeError, match="velocity goes with momentum"):
        SgdUpdate(momentum=0.9).infer(Type((2,)), Type((2,)), *[None] * 6)


def test_clipping_is_torchs():
    """The norm over two gradients, one of them scaled, and the coefficient; above and below the limit."""
    a, b, factor = normal((3, 4)), normal((5,), 1), normal((4,), 2)
    for limit in (0.5, 100.0):
        (first,) = SumSquares().reference(a, factor, None)
        (total,) = SumSquares().reference(b, None, first)
        (coefficient,) = ClipCoefficient(limit).reference(total)
        tensors = [torch.zeros(3, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)]
        for tensor, grad in zip(tensors, (a * factor, b), strict=True):
            tensor.grad = torch.from_numpy(grad.copy())
        norm = torch.nn.utils.clip_grad_norm_(tensors, limit)
        np.testing.assert_allclose(total, norm.item() ** 2, rtol=1e-12)
        np.testing.assert_allclose(b * coefficient, tensors[1].grad.numpy(), rtol=1e-12)


def test_accumulate_and_fill():
    a, b = normal((2, 3)), normal((2, 3), 1)
    np.testing.assert_array_equal(Accumulate().reference(a, b)[0], a + b)
    np.testing.assert_array_equal(Fill(1.5).reference(a)[0], np.full((2, 3), 1.5))


@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm(affine):
    x, mean, var = normal((2, 3, 4, 5)), normal((5,), 1), np.abs(normal((5,), 2)) + 0.1
    scale, shift = (normal((5,), 3), normal((5,), 4)) if affine else (None, None)
    (y,) = BatchNorm(1e-3).reference(x, mean, var, scale, shift)
    tensors = [None if a is None else torch.from_numpy(a) for a in (mean, var, scale, shift)]
    judged = F.batch_norm(torch.from_numpy(x).permute(0, 3, 1, 2), *tensors, eps=1e-3).permute(0, 2, 3, 1)
    np.testing.assert_allclose(y, judged.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.int8, np.int32])
def test_integers_follow_the_real_step_on_average(dtype):
    """100 steps of 0.03 units move a parameter by three units, give or take what is drawn; nothing is lost to rounding."""
    q = np.zeros((40, 25), dtype)
    scale, grad = np.full(25, 0.5), np.full((40, 25), 0.15)
    for step in range(100):
        (q,) = SgdUpdate(lr=0.1, stream=1).reference(q, grad, *[None] * 4, scale, np.array([5, step], np.int32))
    assert q.dtype == dtype
    assert abs(q.mean() + 3.0) < 0.2
    assert 1.2 < q.std() < 2.2  # sqrt(100 · 0.03 · 0.97)


def test_integers_stay_in_range_and_their_block_may_start_anywhere():
    q = np.array([[127, -127, 0], [1, 2, 3], [4, 5, 6]], np.int8)
    step, scale = np.array([0, 0], np.int32), np.ones(3)
    op = SgdUpdate(lr=1.0)
    (far,) = op.reference(q, np.array([[-9.0, 9.0, 1000.0]]), *[None] * 4, scale, step)
    np.testing.assert_array_equal(far, [[127, -127, -127], [1, 2, 3], [4, 5, 6]])
    (last,) = SgdUpdate(lr=1.0, start=2).reference(q, np.array([[1.0, 2.0, 3.0]]), *[None] * 4, scale, step)
    np.testing.assert_array_equal(last, [[127, -127, 0], [1, 2, 3], [3, 3, 3]])
    with pytest.raises(ShapeError, match="from 3 on"):
        SgdUpdate(start=3).infer(Type((3, 3)), Type((1, 3)), *[None] * 6)
