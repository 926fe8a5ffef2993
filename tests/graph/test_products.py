"""Linear and convolution: results, gradients, epilogues and cost, judged by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from edgekit.graph.builder import Builder
from edgekit.graph.op import Array, ShapeError
from edgekit.graph.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad, window_output
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import Linear, LinearInputGrad, LinearWeightGrad
from tests.graph.judge import TORCH, check, nchw, nhwc, node_of, normal

MASKED = (Function.RELU, Function.RELU6)


def optional(present: bool, shape: tuple[int, ...], seed: int) -> Array | None:
    return normal(shape, seed) if present else None


def torch_linear(x, w, bias=None, residual=None):
    y = x @ w
    y = y if bias is None else y + bias
    return y if residual is None else y + residual


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.booleans())
def test_linear(lead, k, n, bias, residual):
    x, w = normal((*lead, k)), normal((k, n), 1)
    check(Linear(), [x, w, optional(bias, (n,), 2), optional(residual, (*lead, n), 3)], torch_linear)


@st.composite
def convolutions(draw):
    """(op, x shape, w shape): small windows with every awkward combination of attributes."""
    groups, cg, og = draw(st.sampled_from([(1, 1, 1), (1, 3, 4), (1, 5, 2), (2, 2, 3), (3, 1, 1), (4, 1, 2)]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    try:
        window_output(size, kernel, stride, padding, dilation)
    except ShapeError:
        assume(False)
    batch = draw(st.integers(1, 2))
    return Conv2d(stride, padding, dilation, groups), (batch, *size, groups * cg), (*kernel, cg, groups * og)


def torch_conv(op: Conv2d):
    def function(x, w, bias=None, residual=None):
        top, bottom, left, right = op.padding
        padded = F.pad(nchw(x), (left, right, top, bottom))
        y = nhwc(F.conv2d(padded, w.permute(3, 2, 0, 1), bias, op.stride, 0, op.dilation, op.groups))
        return y if residual is None else y + residual

    return function


@given(convolutions(), st.booleans(), st.booleans())
def test_conv2d(convolution, bias, residual):
    op, x_shape, w_shape = convolution
    x, w = normal(x_shape), normal(w_shape, 1)
    y_shape = op.reference(x, w, None, None)[0].shape
    check(op, [x, w, optional(bias, y_shape[-1:], 2), optional(residual, y_shape, 3)], torch_conv(op))


@pytest.mark.parametrize("act", list(Function)[:9])
@pytest.mark.parametrize("op", [Linear, Conv2d])
def test_forward_epilogue(op, act):
    """y = act(pre), pre = acc + bias + residual, mask = where act' is 1."""
    x, w = (normal((4, 5)), normal((5, 6), 1)) if op is Linear else (normal((2, 3, 4, 5)), normal((1, 1, 5, 6), 1))
    bias, residual = normal((6,), 2), normal((*x.shape[:-1], 6), 3) * 4
    y, mask, pre = op(act=act).reference(x, w, bias, residual)
    np.testing.assert_allclose(pre, x @ w.reshape(5, 6) + bias + residual, rtol=1e-12)
    argument = torch.from_numpy(pre.copy()).requires_grad_()
    judged = TORCH[act](argument)
    np.testing.assert_allclose(y, judged.detach().numpy(), rtol=1e-12, atol=1e-12)
    if act in MASKED:
        (slope,) = torch.autograd.grad(judged.sum(), argument)
        np.testing.assert_array_equal(mask, slope.numpy() == 1)
        assert 0 < mask.sum() < mask.size


@pytest.mark.parametrize(("act", "bits"), [(act, False) for act in list(Function)[1:9]] + [(act, True) for act in MASKED])
@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize("conv", [False, True])
def test_backward_epilogue(conv, addend, act, bits):
    """dx = (acc + addend) * act'(saved) is the gradient of conv(act(p)) plus that of another reader of act(p)."""
    p = torch.from_numpy(normal((2, 3, 4, 5), 5) * 4).requires_grad_()
    x = TORCH[act](p)
    w, other = normal((1, 1, 5, 6), 1), normal((2, 3, 4, 5), 3)
    y = x @ torch.from_numpy(w.reshape(5, 6))
    dy = normal(tuple(y.shape), 4)
    joint = (y * torch.from_numpy(dy)).sum() + (x * torch.from_numpy(other)).sum() * addend
    (judged,) = torch.autograd.grad(joint, p)
    result = x.detach().numpy()
    saved = result if act.grad_uses_output else p.detach().numpy()
    if bits:
        saved = (result > 0) & ((result < 6) | (act is Function.RELU))
    op = Conv2dInputGrad((3, 4), act=act) if conv else LinearInputGrad(act)
    (dx,) = op.reference(dy, w if conv else w.reshape(5, 6), other if addend else None, saved, None)
    np.testing.assert_allclose(dx, judged.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("groups", [1, 2])
def test_weight_gradient_of_a_slice(groups):
    """From the first channels of each group comes the same slice of the whole gradient."""
    x, dy = normal((2, 6, 5, 8)), normal((2, 4, 3, 6), 1)
    op = Conv2dWeightGrad((3, 3), groups=groups)
    whole, db = op.reference(x, dy, None)
    kept = 3
    part = x.reshape(2, 6, 5, groups, -1)[..., :kept].reshape(2, 6, 5, groups * kept)
    dw, db_part = op.reference(part, dy, None)
    np.testing.assert_allclose(dw, whole[:, :, :kept], rtol=1e-12)
    np.testing.assert_array_equal(db, db_part)
    lx, ldy = normal((7, 5)), normal((7, 4), 1)
    op = LinearWeightGrad()
    np.testing.assert_allclose(op.reference(lx[:, :2], ldy, None)[0], op.reference(lx, ldy, None)[0][:2])


@pytest.mark.parametrize("op", [Linear(Function.RELU), Conv2d(act=Function.RELU6)])
def test_no_gradient_after_fusion(op):
    x, w = (normal((2, 3)), normal((3, 4))) if isinstance(op, Linear) else (normal((1, 2, 2, 3)), normal((1, 1, 3, 4)))
    build = Builder()
    node, _ = node_of(build, op, [x, w, None, None])
    with pytest.raises(NotImplementedError, match="fused RELU"):
        op.gradient(build, node, node.outputs[0], [True] * 4)


@given(convolutions())
def test_cost_is_that_of_the_products(convolution):
    """Counted by hand: two for every weight that every output element sees; each gradient costs the same."""
    op, x_shape, w_shape = convolution
    build = Builder()
    x, w = normal(x_shape), normal(w_shape)
    node, _ = node_of(build, op, [x, w, None, None])
    y = node.outputs[0]
    kh, kw, cg, _ = w_shape
    assert op.flops(node) == 2 * y.type.size * kh * kw * cg
    op.gradient(build, node, y, [True, True, False, False])
    assert [n.op.flops(n) for n in build.graph.nodes[1:]] == [op.flops(node)] * 2


def test_cost_of_linear():
    build = Builder()
    node, _ = node_of(build, Linear(), [normal((2, 3, 5)), normal((5, 7)), None, None])
    Linear().gradient(build, node, node.outputs[0], [True, True, True, False])
    assert [n.op.flops(n) for n in build.graph.nodes] == [2 * 6 * 5 * 7] * 3
