"""How far from the float64 reference a float32 backend may be: rounding, growing with the length of a sum.

A sum of n products rounds to within about sqrt(n) units of the sum of the products' magnitudes (errors of random sign;
Higham, Accuracy and Stability of Numerical Algorithms, section 2.8). Data that is moved or compared is exact.
"""

# ruff: noqa: ARG001 (every rule takes the same arguments)
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops import conv, elementwise, linear, loss, pool, quantized, shape, update
from edgekit.graph.ops.function import Arithmetic, Function, Reduction, derivative

EPS = 2.0**-23
TINY = 1e-37  # results this small may be flushed to zero

Operands = Sequence[Array | None]


@dataclasses.dataclass(frozen=True)
class Bound:
    """``error`` is absolute, an element or for all; ``unsure`` is where a boolean result may be either."""

    error: Array | float = 0.0
    unsure: Array | None = None


EXACT = Bound()


def growth(n: int) -> float:
    """The relative error of a sum of n terms."""
    return EPS * (4.0 + 2.0 * math.sqrt(n))


def bounds(op: Op, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    """For every result (or mutated operand) of the reference, in order."""
    return _BOUNDS[type(op)](op, operands, results)


def magnitude(op: Op, operands: Operands) -> Array:
    """Result 0 of an op that is linear in its operands, with nothing cancelling."""
    plain = dataclasses.replace(op, act=Function.IDENTITY) if hasattr(op, "act") else op  # type: ignore[call-arg]
    return plain.reference(*map(_size, operands))[0]


def _size(a: Array | None) -> Array | None:
    """The magnitudes; of int8 as float64, since 128 is none of its numbers."""
    return np.abs(a.astype(np.float64)) if a is not None and a.dtype in (np.float64, np.int8) else a


def evaluation(fn: Function, x: Array, y: Array) -> Array:
    """The error of fn at an exact argument."""
    match fn:
        case Function.IDENTITY | Function.RELU | Function.RELU6 | Function.NEG | Function.ABS:
            return np.zeros(x.shape)
        case Function.HARDSIGMOID:
            return np.full(x.shape, 4 * EPS)
        case Function.TANH | Function.LOG:
            return EPS * (2 + 8 * np.abs(y))
        case Function.HARDSWISH | Function.GELU:
            return EPS * 8 * np.abs(x) + TINY
        case _:
            return EPS * (8 + np.minimum(np.abs(x), 100)) * np.abs(y) + TINY


def steepness(fn: Function, saved: Array) -> Array:
    """The error of fn' from what was saved."""
    if saved.dtype == np.bool_ or fn in (Function.IDENTITY, Function.RELU, Function.RELU6, Function.NEG, Function.ABS):
        return np.zeros(saved.shape)
    return 8 * EPS * (1 + np.abs(derivative(fn, saved)) + np.minimum(np.abs(saved), 100) * (fn in (Function.SILU, Function.GELU)))


def _exact(op: Op, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    return [EXACT] * len(results)


def _one_rounding(op: Op, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    return [Bound(4 * EPS * np.abs(results[0]) + TINY), *[EXACT] * (len(results) - 1)]


def _length(op: Op, operands: Operands) -> int:
    """Terms in one sum of a product."""
    a, b = (np.shape(x) for x in operands[:2])
    match op:
        case linear.Linear():
            return a[-1]
        case linear.LinearInputGrad():
            return b[1]
        case linear.LinearWeightGrad() | conv.Conv2dWeightGrad():
            return math.prod(b[:-1])
        case conv.Conv2d():
            return math.prod(b[:3])
        case conv.Conv2dInputGrad():
            return b[0] * b[1] * b[3] // op.groups
    raise AssertionError(op)


def _epilogue(op: Any, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    """(y, mask, pre): the argument's error passes through act, whose slope is at most 1.5."""
    y, _, pre = results
    n = 2 if isinstance(op, elementwise.Affine) else _length(op, operands) + 2
    error = growth(n) * magnitude(op, operands) + TINY
    unsure = np.abs(pre) <= error
    if op.act is Function.RELU6:
        unsure |= np.abs(pre - 6.0) <= error
    slope = 1.0 if op.act in (Function.IDENTITY, Function.RELU, Function.RELU6) else 1.5
    return [Bound(slope * error + evaluation(op.act, pre, y)), Bound(unsure=unsure), Bound(error)]


def _backward_epilogue(op: Any, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    dy, w, addend, saved, scale = operands
    size = magnitude(op, [dy, w, addend, None, scale])
    error = growth(_length(op, operands) + 1) * size + TINY
    if saved is None:
        return [Bound(error)]
    return [Bound(error * np.abs(derivative(op.act, saved)) + size * steepness(op.act, saved))]


def _weight_grad(op: Op, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    x, dy, quant = operands
    assert x is not None
    assert dy is not None
    sizes = op.reference(np.abs(linear.real_activation(x, quant)), np.abs(dy), None)
    return [Bound(growth(_length(op, operands)) * size + TINY) for size in sizes]


def _unary(op: elementwise.Unary, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    assert operands[0] is not None
    return [Bound(evaluation(op.fn, operands[0], results[0])), EXACT]


def _unary_grad(op: elementwise.UnaryGrad, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    dy, saved = operands
    assert dy is not None
    assert saved is not None
    return [Bound(np.abs(dy) * steepness(op.fn, saved) + 2 * EPS * np.abs(results[0]) + TINY)]


def _binary(op: elementwise.Binary, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    exact = op.fn in (Arithmetic.MAXIMUM, Arithmetic.MINIMUM)
    return [EXACT if exact else Bound(2 * EPS * np.abs(results[0]) + TINY)]


def _reduce(op: elementwise.Reduce, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    if op.fn is Reduction.MAX:
        return [EXACT]
    assert operands[0] is not None
    return [Bound(growth(operands[0].size // results[0].size) * magnitude(op, operands) + TINY)]


def _pool(terms: Callable[[Any, Operands], int]) -> Callable[[Op, Operands, Sequence[Array]], list[Bound]]:
    def bound(op: Op, operands: Operands, results: Sequence[Array]) -> list[Bound]:
        return [Bound(growth(terms(op, operands)) * magnitude(op, operands) + TINY)]

    return bound


def _kernel(op: Any, operands: Operands) -> int:
    return int(op.kernel[0] * op.kernel[1])


def _pixels(op: Any, operands: Operands) -> int:
    assert operands[0] is not None
    return operands[0].shape[1] * operands[0].shape[2]


def _cross_entropy(op: loss.CrossEntropy, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    logits, targets = operands
    assert logits is not None
    assert targets is not None
    spread = np.abs(logits).max() + math.log(logits.shape[-1]) + 1
    rows = targets.size if op.reduction is Reduction.SUM else 1
    return [Bound(growth(logits.size) * spread * 2 * rows)]


def _cross_entropy_grad(op: loss.CrossEntropyGrad, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    logits, targets, dloss = operands
    assert logits is not None
    assert targets is not None
    assert dloss is not None
    scale = abs(float(dloss)) / (1 if op.reduction is Reduction.SUM else max(1, np.count_nonzero(targets != op.ignore_index)))
    return [Bound(4 * growth(logits.shape[-1]) * scale)]


def _softmax(op: loss.Softmax, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    (x,) = operands
    assert x is not None
    (y,) = results
    below = x.max(axis=-1, keepdims=True) - x
    if op.log:
        return [Bound(growth(x.shape[-1]) * (np.abs(y) + np.abs(x) + 1))]
    return [Bound((growth(x.shape[-1]) + 2 * EPS * np.minimum(below, 100)) * y + TINY)]


def _softmax_grad(op: loss.SoftmaxGrad, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    dy, y = operands
    assert dy is not None
    assert y is not None
    if op.log:
        size = np.abs(dy) + (1 + np.abs(y)) * np.exp(y) * np.abs(dy).sum(axis=-1, keepdims=True)
    else:
        size = y * (np.abs(dy) + np.abs(dy * y).sum(axis=-1, keepdims=True))
    return [Bound(2 * growth(y.shape[-1]) * size + TINY)]


def _nll(op: loss.NllLoss, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    return [Bound(growth(np.size(operands[1])) * np.abs(magnitude(op, operands)) + TINY)]


def _sgd(op: update.SgdUpdate, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    whole, step = operands[0], operands[7]
    param, grad, velocity, factor, offset, clip, scale, _ = (None if a is None else np.abs(a.astype(float)) for a in operands)
    assert param is not None
    assert grad is not None
    assert whole is not None
    block = param[op.block(grad.shape)]
    if scale is not None:
        scale = scale[: grad.shape[-1]]
        block = block * scale
    g = grad * (1.0 if factor is None else factor) * (1.0 if clip is None else clip)
    g = g + op.weight_decay * (block + (0.0 if offset is None else offset))
    v = g if velocity is None else op.momentum * velocity + g
    size = op.lr * (g + op.momentum * v if op.nesterov else v)
    if scale is not None and step is not None:
        return [Bound(unsure=_near_rounding(op, operands, size / scale)), *([] if velocity is None else [Bound(8 * EPS * v)])]
    change = np.zeros(param.shape)
    change[op.block(grad.shape)] = size
    error = Bound(8 * EPS * np.where(change != 0, np.abs(results[0]) + change, 0))
    return [error] if velocity is None else [error, Bound(8 * EPS * v)]


def _linear_sgd(op: update.LinearSgd, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    """The step's own rounding, and the product's error on its way through the step, which is linear in the gradient."""
    x, dy, param, velocity, factor, offset = operands
    assert x is not None
    assert dy is not None
    assert param is not None
    sizes = linear.LinearWeightGrad().reference(np.abs(x), np.abs(dy), None)
    grad_error, db_error = (growth(math.prod(dy.shape[:-1])) * size + TINY for size in sizes)
    grad = linear.LinearWeightGrad().reference(x, dy, None)[0].reshape(*param.shape[:-2], x.shape[-1], -1)
    own = _sgd(op.step, (param, grad, velocity, factor, offset, None, None, None), results[1:])
    through = grad_error.reshape(grad.shape) * (1.0 if factor is None else np.abs(factor))
    moved = np.zeros(param.shape)
    moved[op.step.block(grad.shape)] = op.lr * (1 + op.momentum * op.nesterov) * through
    return [Bound(db_error), *(Bound(b.error + e) for b, e in zip(own, (moved, through), strict=False))]


def _q_conv2d(op: quantized.QConv2d, operands: Operands, results: Sequence[Array]) -> list[Bound]:
    return _one_rounding(op, operands, results) if op.real else [EXACT, EXACT]


def _near_rounding(op: update.SgdUpdate, operands: Operands, size: Array) -> Array:
    """Where an integer may be rounded the other way: what is rounded is within its error (``size`` its magnitude) of a whole
    number. The real parameters of a reference step in float64 tell where it is."""
    q, grad, velocity, factor, offset, clip, scale, step = operands
    assert q is not None
    assert grad is not None
    assert scale is not None
    assert step is not None
    block, unit, first = op.block(grad.shape), scale[: grad.shape[-1]], op.start * grad.shape[-1]
    real = q[block] * unit
    plain = dataclasses.replace(op, start=0)
    after = plain.reference(real, grad, velocity, factor, offset, clip, None, None)[0]
    drawn = elementwise.uniform(op.stream, int(step[0]), int(step[1]), first + grad.size)[first:].reshape(grad.shape)
    value = drawn - (real - after) / unit
    unsure = np.zeros(q.shape, np.bool_)
    near = np.abs(value - np.rint(value)) <= 16 * EPS * (1 + size) + 1e-15 * np.abs(real / unit)
    unsure[block] = near & (np.abs(value) < 2.0**31)  # further steps are cut off
    return unsure


_BOUNDS: dict[type[Op], Callable[[Any, Operands, Sequence[Array]], list[Bound]]] = {
    linear.Linear: _epilogue,
    linear.LinearInputGrad: _backward_epilogue,
    linear.LinearWeightGrad: _weight_grad,
    conv.Conv2d: _epilogue,
    conv.Conv2dInputGrad: _backward_epilogue,
    conv.Conv2dWeightGrad: _weight_grad,
    elementwise.Unary: _unary,
    elementwise.UnaryGrad: _unary_grad,
    elementwise.ApplyMask: _one_rounding,
    elementwise.Dropout: _one_rounding,
    elementwise.Binary: _binary,
    elementwise.Affine: _epilogue,
    elementwise.Reduce: _reduce,
    elementwise.Expand: _exact,
    shape.Permute: _exact,
    shape.Slice: _exact,
    shape.Unslice: _exact,
    shape.Concat: _exact,
    pool.MaxPool2d: _exact,
    pool.MaxPool2dGrad: _pool(_kernel),
    pool.AvgPool2d: _pool(_kernel),
    pool.AvgPool2dGrad: _pool(_kernel),
    pool.AdaptiveAvgPool2d: _pool(_pixels),
    pool.AdaptiveAvgPool2dGrad: _pool(_pixels),
    loss.CrossEntropy: _cross_entropy,
    loss.CrossEntropyGrad: _cross_entropy_grad,
    loss.Softmax: _softmax,
    loss.SoftmaxGrad: _softmax_grad,
    loss.NllLoss: _nll,
    loss.NllLossGrad: _one_rounding,
    loss.ArgmaxMatch: _exact,
    update.SgdUpdate: _sgd,
    update.LinearSgd: _linear_sgd,
    quantized.Quantize: _exact,
    quantized.Dequantize: _one_rounding,
    quantized.QConv2d: _q_conv2d,
    quantized.QAdd: _exact,
    quantized.QMean: _exact,
    update.Accumulate: _one_rounding,
    update.Fill: _exact,
    update.SumSquares: _one_rounding,
    update.ClipCoefficient: _one_rounding,
}
