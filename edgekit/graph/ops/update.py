"""Ops that change state: optimizer steps, gradient accumulation, and the norm that clipping needs.

A gradient may be a block of its parameter (a slice of the input channels): every axis of the gradient is at most the
parameter's, and the block starts at index 0; but for an SGD step, on the axis before the last, at any.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.elementwise import uniform
from edgekit.graph.ops.linear import LinearWeightGrad, check
from edgekit.graph.value import DType, Type

if TYPE_CHECKING:
    from edgekit.graph.graph import Node

SCALAR = Type(())


def leading_block(shape: tuple[int, ...]) -> tuple[slice | EllipsisType, ...]:
    """The index of the first ``shape`` elements of each axis: a view, of a scalar too."""
    return (*(slice(n) for n in shape), ...)


def check_per_channel(grad: Type, vector: Type | None) -> None:
    check(vector is None or vector.shape in (grad.shape[-1:], grad.shape), f"{vector} does not fit the gradient {grad}")


@dataclass(frozen=True)
class SgdUpdate(Op):
    """One SGD step in place, as torch.optim.SGD (dampening 0).

    g = clip[] * factor * grad + weight_decay * (param - offset)
    velocity = momentum * velocity + g
    param -= lr * (g + momentum * velocity if nesterov, else velocity)

    ``factor`` (over the last axis) and ``offset`` carry the folded BatchNorm (docs/architecture.md, "Folded
    BatchNorm"); absent means 1 and 0. Without velocity the step is lr * g.

    An int8 or int32 param q (with ``scale`` over the last axis, and ``step`` as Dropout's) stands for scale * q in all this. The
    step d of that number becomes q += floor(r - d / scale), rounded up or down at random so that the mean is right: r in [0, 1)
    is drawn for each element as Dropout draws, by seed, step and ``stream``; element i of the gradient is number
    start * columns + i. q is kept in ±127, or ±(2^31 - 1).
    """

    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    stream: int = 0  #: tells several int8 parameters of one program apart
    start: int = 0  #: where the gradient's block starts on the axis before the last

    name: ClassVar[str] = "sgd_update"
    code: ClassVar[int] = 50
    operands: ClassVar[tuple[str, ...]] = (
        "param",
        "grad",
        "velocity?",
        "factor?",
        "offset?",
        "clip?",
        "scale?",
        "step?",
    )
    results: ClassVar[tuple[str, ...]] = ()
    mutates: ClassVar[tuple[int, ...]] = (0, 2)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        param, grad, velocity, factor, offset, clip, scale, step = operands
        assert param is not None and grad is not None
        block = len(param.shape) == len(grad.shape) and all(g <= p for g, p in zip(grad.shape, param.shape, strict=True))
        check(block and grad.dtype is DType.F32, f"sgd_update: {grad} is no leading block of {param}")
        room = param.shape[-2] - grad.shape[-2] if len(param.shape) > 1 else 0
        check(0 <= self.start <= room, f"sgd_update: {grad} does not fit {param} from {self.start} on")
        check((velocity is None) == (self.momentum == 0.0), "sgd_update: velocity goes with momentum")
        check(velocity is None or velocity == grad, f"sgd_update: velocity {velocity} is not {grad}")
        check_per_channel(grad, factor)
        check_per_channel(grad, offset)
        check(clip is None or clip == SCALAR, f"sgd_update: clip is {clip}")
        whole = param.dtype in (DType.I8, DType.I32)
        check(whole or param.dtype is DType.F32, f"sgd_update: param is {param}")
        wanted = (Type(param.shape[-1:]), Type((2,), DType.I32)) if whole else (None, None)
        check((scale, step) == wanted, f"sgd_update: {param} with scale {scale}, step {step}")
        return ()

    def flops(self, node: Node) -> int:
        _, grad, velocity, factor, offset, clip, scale, _ = node.inputs
        assert grad is not None
        extras = (velocity, factor, offset, clip, scale)
        return grad.type.size * (2 + 2 * (self.weight_decay != 0.0) + 2 * self.nesterov + sum(v is not None for v in extras))

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        param, grad, velocity, factor, offset, clip, scale, step = operands
        assert param is not None and grad is not None
        after = param.copy()
        block = after[self.block(grad.shape)]
        unit = None if scale is None else scale[: grad.shape[-1]]
        real = block if unit is None else block.astype(unit.dtype) * unit
        g = grad if clip is None else grad * clip
        g = g if factor is None else g * factor
        g = g + self.weight_decay * (real if offset is None else real - offset)
        v = g if velocity is None else np.asarray(self.momentum * velocity + g)
        change = self.lr * (g + self.momentum * v if self.nesterov else v)
        if unit is None:
            block -= change
        else:
            assert step is not None
            block[...] = self._rounded(block, change / unit, step)
        return (after,) if velocity is None else (after, v)

    def block(self, shape: tuple[int, ...]) -> tuple[slice | EllipsisType, ...]:
        """The index of the part of the parameter that a gradient of this shape changes."""
        if len(shape) < 2:
            return leading_block(shape)
        return (*leading_block(shape[:-2])[:-1], slice(self.start, self.start + shape[-2]), slice(shape[-1]))

    def _rounded(self, q: Array, change: Array, step: Array) -> Array:
        """q - change, rounded at random and kept in range."""
        most = 127 if q.dtype == np.int8 else (1 << 31) - 1
        first = self.start * q.shape[-1]
        drawn = uniform(self.stream, int(step[0]), int(step[1]), first + q.size)[first:].reshape(q.shape).astype(change.dtype)
        moved = np.clip(np.floor(np.nan_to_num(drawn - change)), -(2.0**30), 2.0**30).astype(np.int64)
        return np.asarray(np.clip(q + moved, -most, most), q.dtype)


@dataclass(frozen=True)
class LinearSgd(Op):
    """A linear layer's weight gradient and its SGD step at once; the gradient never exists as an array.

    ``SgdUpdate`` of param[..., K', N], whose other axes have length 1, with the gradient x[..., K].T @ dy[..., N] of its first K
    rows; velocity[..., K, N], factor[N], offset[N]. db[N] as ``LinearWeightGrad`` makes it.
    """

    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    name: ClassVar[str] = "linear_sgd"
    code: ClassVar[int] = 55
    operands: ClassVar[tuple[str, ...]] = ("x", "dy", "param", "velocity?", "factor?", "offset?")
    results: ClassVar[tuple[str, ...]] = ("db?",)
    mutates: ClassVar[tuple[int, ...]] = (2, 3)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, dy, param, velocity, factor, offset = operands
        assert x is not None and dy is not None and param is not None
        dw, db = LinearWeightGrad().infer(x, dy, None)
        check(len(param.shape) >= 2 and set(param.shape[:-2]) <= {1}, f"linear_sgd: {param} is no matrix")
        grad = Type((*param.shape[:-2], *dw.shape))
        check(all(v is None or v.shape == db.shape for v in (factor, offset)), f"linear_sgd: {factor}, {offset} are not {db}")
        check(param.dtype is DType.F32, f"linear_sgd: param is {param}")
        self.step.infer(param, grad, velocity, factor, offset, None, None, None)
        check(param.shape[-1] == grad.shape[-1], f"linear_sgd: {grad} is no leading rows of {param}")
        return (db,)

    @property
    def step(self) -> SgdUpdate:
        """The step alone."""
        return SgdUpdate(self.lr, self.momentum, self.weight_decay, self.nesterov)

    def flops(self, node: Node) -> int:
        x, dy, *_ = node.inputs
        assert x is not None and dy is not None
        return 2 * x.type.size * dy.shape[-1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, dy, param, velocity, factor, offset = operands
        assert param is not None
        dw, db = LinearWeightGrad().reference(x, dy, None)
        grad = dw.reshape(*param.shape[:-2], *dw.shape)
        return db, *self.step.reference(param, grad, velocity, factor, offset, None, None, None)


@dataclass(frozen=True)
class Accumulate(Op):
    """total += value, in place."""

    name: ClassVar[str] = "accumulate"
    code: ClassVar[int] = 51
    operands: ClassVar[tuple[str, ...]] = ("total", "value")
    results: ClassVar[tuple[str, ...]] = ()
    mutates: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        total, value = operands
        check(total == value, f"accumulate: {total}, {value}")
        return ()

    def flops(self, node: Node) -> int:
        return next(node.reads).type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        total, value = operands
        assert total is not None and value is not None
        return (np.asarray(total + value),)


@dataclass(frozen=True)
class Fill(Op):
    """Set a state to one value, in place."""

    value: float = 0.0

    name: ClassVar[str] = "fill"
    code: ClassVar[int] = 52
    operands: ClassVar[tuple[str, ...]] = ("target",)
    results: ClassVar[tuple[str, ...]] = ()
    mutates: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        check(operands[0] is not None and operands[0].dtype is DType.F32, f"fill: {operands[0]}")
        return ()

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        assert operands[0] is not None
        return (np.full_like(operands[0], self.value),)


@dataclass(frozen=True)
class SumSquares(Op):
    """total[] = previous[] + the sum of (factor * grad)², summed in double precision where the backend has it."""

    name: ClassVar[str] = "sum_squares"
    code: ClassVar[int] = 53
    operands: ClassVar[tuple[str, ...]] = ("grad", "factor?", "previous?")
    results: ClassVar[tuple[str, ...]] = ("total",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        grad, factor, previous = operands
        assert grad is not None
        check_per_channel(grad, factor)
        check(previous is None or previous == SCALAR, f"sum_squares: previous is {previous}")
        return (SCALAR,)

    def flops(self, node: Node) -> int:
        return 2 * next(node.reads).type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        grad, factor, previous = operands
        assert grad is not None
        scaled = grad if factor is None else grad * factor
        total = np.sum(np.square(scaled.astype(np.float64))) + (0.0 if previous is None else float(previous))
        return (np.asarray(total, grad.dtype),)


@dataclass(frozen=True)
class ClipCoefficient(Op):
    """coefficient[] = min(1, max_norm / (sqrt(total[]) + 1e-6)), as torch.nn.utils.clip_grad_norm_."""

    max_norm: float = 1.0

    name: ClassVar[str] = "clip_coefficient"
    code: ClassVar[int] = 54
    operands: ClassVar[tuple[str, ...]] = ("total",)
    results: ClassVar[tuple[str, ...]] = ("coefficient",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        check(operands == (SCALAR,), f"clip_coefficient: {operands}")
        return (SCALAR,)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (total,) = operands
        assert total is not None
        return (np.asarray(np.minimum(1.0, self.max_norm / (np.sqrt(total) + 1e-6)), total.dtype),)
