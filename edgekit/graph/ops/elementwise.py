"""Elementwise ops, their gradients, per-channel affine, and reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.function import Arithmetic, Function, Reduction, apply, derivative, mask_of
from edgekit.graph.ops.linear import check, epilogue, require_unfused, sum_rows
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import MAX_RANK, DType, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting of two shapes.

    Raises:
        ShapeError: they do not broadcast.
    """
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    check(all(x == y or 1 in (x, y) for x, y in zip(left, right, strict=True)), f"shapes {a} and {b} do not broadcast")
    return tuple(y if x == 1 else x for x, y in zip(left, right, strict=True))


def unbroadcast(build: Builder, dy: Value, shape: tuple[int, ...]) -> Value:
    """Sum dy over the axes along which an operand of ``shape`` was broadcast to it."""
    lead = len(dy.shape) - len(shape)
    aligned = (1,) * lead + shape
    axes = sum(1 << i for i, (n, m) in enumerate(zip(dy.shape, aligned, strict=True)) if n != m)
    total = build(Reduce(Reduction.SUM, axes, keepdims=True), dy) if axes else dy
    return total if total.shape == shape else build(Reshape.to(shape), total)


def scalar(build: Builder, value: float) -> Value:
    """A constant of rank 0."""
    return build.constant(f"{value:g}", np.array(value))


@dataclass(frozen=True)
class Unary(Op):
    """y = fn(x); ``mask`` is where fn' is 1 (relu, relu6)."""

    fn: Function = Function.IDENTITY

    name: ClassVar[str] = "unary"
    code: ClassVar[int] = 10
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y", "mask?")
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        return x, Type(x.shape, DType.BITS)

    def saves(self) -> tuple[int, ...]:
        return (1,) if self.fn.grad_needs_mask else ()

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        if not wanted[0]:
            return [None]
        if self.fn is Function.IDENTITY:
            return [dy]
        if self.fn is Function.NEG:
            return [build(self, dy)]
        y, mask = node.outputs
        if mask is not None and self.fn.grad_needs_mask:
            return [build(ApplyMask(), dy, mask)]
        return [build(UnaryGrad(self.fn), dy, y if self.fn.grad_uses_output else node.inputs[0])]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        y = apply(self.fn, x)
        return y, mask_of(self.fn, y)


@dataclass(frozen=True)
class UnaryGrad(Op):
    """dx = dy * fn'(saved); saved is fn's result or its argument, as ``fn.grad_uses_output`` says."""

    fn: Function = Function.IDENTITY

    name: ClassVar[str] = "unary_grad"
    code: ClassVar[int] = 11
    operands: ClassVar[tuple[str, ...]] = ("dy", "saved")
    results: ClassVar[tuple[str, ...]] = ("dx",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        dy, saved = operands
        assert dy is not None and saved is not None
        check(dy == saved, f"unary_grad: {dy}, {saved}")
        return (dy,)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        dy, saved = operands
        assert dy is not None and saved is not None
        return (np.asarray(dy * derivative(self.fn, saved)),)


@dataclass(frozen=True)
class ApplyMask(Op):
    """y = x * scale where the mask's bit is set, else 0."""

    scale: float = 1.0

    name: ClassVar[str] = "apply_mask"
    code: ClassVar[int] = 12
    operands: ClassVar[tuple[str, ...]] = ("x", "mask")
    results: ClassVar[tuple[str, ...]] = ("y",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, mask = operands
        assert x is not None and mask is not None
        check(x.shape == mask.shape and mask.dtype is DType.BITS, f"apply_mask: {x}, {mask}")
        return (x,)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, mask = operands
        assert x is not None and mask is not None
        return (np.where(mask, x * self.scale, 0.0).astype(x.dtype),)


_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def mix(z: Array) -> Array:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014) on uint64, wrapping: docs/program-format.md, "Randomness"."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def draw(stream: int, seed: int, step: int, size: int) -> Array:
    """24 random bits for each of ``size`` elements: docs/program-format.md, "Randomness"."""
    key = np.array([((seed << 32 | step & 0xFFFFFFFF) + _GOLDEN) & _MASK64], np.uint64)
    key = mix(mix(key) + np.uint64(_GOLDEN * (stream + 1) & _MASK64))
    return np.asarray(mix(key + np.uint64(_GOLDEN) * np.arange(1, size + 1, dtype=np.uint64)) >> np.uint64(40))


def uniform(stream: int, seed: int, step: int, size: int) -> Array:
    """The same as numbers in [0, 1)."""
    return draw(stream, seed, step, size) * 2.0**-24


def dropout_mask(p: float, stream: int, seed: int, step: int, size: int) -> Array:
    """Which of ``size`` elements are kept."""
    return np.asarray(draw(stream, seed, step, size) >= math.ceil(float(np.float32(p)) * 2**24))


@dataclass(frozen=True)
class Dropout(Op):
    """A seeded dropout mask: keep with probability 1 - p, y = x / (1 - p) where kept.

    Element i is kept when the upper 24 bits of ``mix(seed, stream, step, i)`` / 2^24 ≥ p, with the mixing function of
    ``docs/program-format.md``: the same mask on every backend, and again after a resume. ``step`` is i32[2]: the
    session's seed and the number of steps done.
    """

    p: float = 0.5
    stream: int = 0  #: tells several dropouts of one model apart

    name: ClassVar[str] = "dropout"
    code: ClassVar[int] = 13
    operands: ClassVar[tuple[str, ...]] = ("x", "step")
    results: ClassVar[tuple[str, ...]] = ("y", "mask?")
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, step = operands
        assert x is not None and step is not None
        check(step == Type((2,), DType.I32), f"dropout: step is {step}")
        check(0.0 <= self.p < 1.0, f"dropout: p = {self.p}")
        return x, Type(x.shape, DType.BITS)

    def saves(self) -> tuple[int, ...]:
        return (1,)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        check(not wanted[1], "dropout: the step has no gradient")
        return [build(ApplyMask(1.0 / (1.0 - self.p)), dy, node.outputs[1]) if wanted[0] else None, None]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, step = operands
        assert x is not None and step is not None
        mask = dropout_mask(self.p, self.stream, int(step[0]), int(step[1]), x.size).reshape(x.shape)
        return np.where(mask, x / (1.0 - self.p), 0.0).astype(x.dtype), mask


_ARITHMETIC: dict[Arithmetic, Any] = {
    Arithmetic.ADD: np.add,
    Arithmetic.SUB: np.subtract,
    Arithmetic.MUL: np.multiply,
    Arithmetic.DIV: np.divide,
    Arithmetic.MAXIMUM: np.maximum,
    Arithmetic.MINIMUM: np.minimum,
}


@dataclass(frozen=True)
class Binary(Op):
    """y = fn(a, b) with NumPy broadcasting."""

    fn: Arithmetic = Arithmetic.ADD

    name: ClassVar[str] = "binary"
    code: ClassVar[int] = 14
    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    results: ClassVar[tuple[str, ...]] = ("y",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))  # only where the operand has y's shape

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        a, b = operands
        assert a is not None and b is not None
        check(a.dtype is DType.F32 and b.dtype is DType.F32, f"binary: {a}, {b}")
        return (Type(broadcast(a.shape, b.shape)),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        a, b = node.inputs
        assert a is not None and b is not None
        if self.fn in (Arithmetic.MAXIMUM, Arithmetic.MINIMUM):
            parts = self._extremum_gradient(build, a, b, dy, wanted)
        else:
            parts = self._smooth_gradient(build, node, dy, wanted)
        shapes = (a.shape, b.shape)
        return [None if p is None else unbroadcast(build, p, s) for p, s in zip(parts, shapes, strict=True)]

    def _smooth_gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        """In y's shape: add dy, dy; sub dy, -dy; mul dy b, dy a; div dy / b, -dy y / b."""
        a, b = node.inputs
        da: Value | None = None
        db: Value | None = None
        match self.fn:
            case Arithmetic.ADD:
                da, db = dy, dy
            case Arithmetic.SUB:
                da, db = dy, build(Unary(Function.NEG), dy) if wanted[1] else None
            case Arithmetic.MUL:
                da = build(Binary(Arithmetic.MUL), dy, b) if wanted[0] else None
                db = build(Binary(Arithmetic.MUL), dy, a) if wanted[1] else None
            case _:
                quotient = build(Binary(Arithmetic.DIV), dy, b) if any(wanted) else None
                da = quotient
                if wanted[1]:
                    product = build(Binary(Arithmetic.MUL), quotient, node.outputs[0])
                    db = build(Unary(Function.NEG), product)
        return [da if wanted[0] else None, db if wanted[1] else None]

    def _extremum_gradient(self, build: Builder, a: Value, b: Value, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        """dy to the operand that won, half of it to each where they are equal (as PyTorch).

        With won = dy where the operand is strictly ahead and lost = dy where the other is: (dy + won - lost) / 2. relu's
        mask of a difference is the comparison.
        """
        if not any(wanted):
            return [None, None]
        first, second = (a, b) if self.fn is Arithmetic.MAXIMUM else (b, a)
        ahead = build(Binary(Arithmetic.SUB), first, second)
        (above,) = build.emit(Unary(Function.RELU), ahead, results=(1,))
        (below,) = build.emit(Unary(Function.RELU), build(Unary(Function.NEG), ahead), results=(1,))
        half = build(Binary(Arithmetic.MUL), dy, scalar(build, 0.5))
        to_a = build(ApplyMask(0.5), dy, above)
        to_b = build(ApplyMask(0.5), dy, below)
        surplus = build(Binary(Arithmetic.SUB), to_a, to_b)
        da = build(Binary(Arithmetic.ADD), half, surplus) if wanted[0] else None
        db = build(Binary(Arithmetic.SUB), half, surplus) if wanted[1] else None
        return [da, db]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        a, b = operands
        assert a is not None and b is not None
        return (np.asarray(_ARITHMETIC[self.fn](a, b)),)


@dataclass(frozen=True)
class Affine(Op):
    """y = act(x * scale[C] + shift[C]) over the last axis: BatchNorm in evaluation mode that did not fold.

    mask and pre as Linear.
    """

    act: Function = Function.IDENTITY

    name: ClassVar[str] = "affine"
    code: ClassVar[int] = 15
    operands: ClassVar[tuple[str, ...]] = ("x", "scale", "shift")
    results: ClassVar[tuple[str, ...]] = ("y", "mask?", "pre?")
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, scale, shift = operands
        assert x is not None and scale is not None and shift is not None
        check(scale.shape == x.shape[-1:] == shift.shape, f"affine: {x}, {scale}, {shift}")
        return x, Type(x.shape, DType.BITS), x

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        require_unfused(node, self.act)
        x, scale, _ = node.inputs
        times = Binary(Arithmetic.MUL)
        return [
            build(times, dy, scale) if wanted[0] else None,
            sum_rows(build, build(times, dy, x)) if wanted[1] else None,
            sum_rows(build, dy) if wanted[2] else None,
        ]

    def flops(self, node: Node) -> int:
        return 2 * self.infer(*(None if v is None else v.type for v in node.inputs))[0].size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, scale, shift = operands
        assert x is not None and scale is not None and shift is not None
        return epilogue(x * scale, shift, None, self.act)


_REDUCTION: dict[Reduction, Any] = {Reduction.SUM: np.sum, Reduction.MEAN: np.mean, Reduction.MAX: np.max}


@dataclass(frozen=True)
class Reduce(Op):
    """Reduce the axes whose bits are set in ``axes`` (bit i is axis i); they stay as 1 if ``keepdims``."""

    fn: Reduction = Reduction.SUM
    axes: int = 0
    keepdims: bool = False

    name: ClassVar[str] = "reduce"
    code: ClassVar[int] = 16
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(0 < self.axes < 1 << len(x.shape), f"reduce: {x}, axes {self.axes:b}")
        kept = [1 if self.axes >> i & 1 else n for i, n in enumerate(x.shape)]
        return (Type(tuple(n for i, n in enumerate(kept) if self.keepdims or not self.axes >> i & 1)),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        x = node.inputs[0]
        assert x is not None
        if not wanted[0]:
            return [None]
        kept = tuple(1 if self.axes >> i & 1 else n for i, n in enumerate(x.shape))
        if self.fn is Reduction.MAX:
            return [self._max_gradient(build, node, dy, kept)]
        if self.fn is Reduction.MEAN:
            dy = build(Binary(Arithmetic.MUL), dy, scalar(build, math.prod(kept) / x.type.size))
        column = dy if dy.shape == kept else build(Reshape.to(kept), dy)
        return [column if kept == x.shape else build(Expand.to(x.shape), column)]

    def _max_gradient(self, build: Builder, node: Node, dy: Value, kept: tuple[int, ...]) -> Value:
        """dy shared evenly among the largest elements (as torch.amax): those that relu(y - x) does not mask."""
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None and y is not None
        peak, column = (v if v.shape == kept else build(Reshape.to(kept), v) for v in (y, dy))
        behind = build(Binary(Arithmetic.SUB), peak, x)
        (smaller,) = build.emit(Unary(Function.RELU), behind, results=(1,))
        ones = build(Expand.to(x.shape), scalar(build, 1.0))
        equal = build(Binary(Arithmetic.SUB), ones, build(ApplyMask(), ones, smaller))
        share = build(Binary(Arithmetic.DIV), column, build(Reduce(Reduction.SUM, self.axes, keepdims=True), equal))
        return build(Binary(Arithmetic.MUL), equal, share)

    def flops(self, node: Node) -> int:
        return sum(v.type.size for v in node.reads)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        axes = tuple(i for i in range(x.ndim) if self.axes >> i & 1)
        fold = _REDUCTION[self.fn]
        return (np.asarray(fold(x, axis=axes, keepdims=self.keepdims)),)


@dataclass(frozen=True)
class Expand(Op):
    """Broadcast x to ``shape`` (its last ``rank`` entries; the leading ones are 1)."""

    shape: tuple[int, int, int, int, int, int] = (1, 1, 1, 1, 1, 1)
    rank: int = 1

    name: ClassVar[str] = "expand"
    code: ClassVar[int] = 17
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    @classmethod
    def to(cls, shape: tuple[int, ...]) -> Expand:
        padded = (1,) * (MAX_RANK - len(shape)) + shape
        return cls((padded[0], padded[1], padded[2], padded[3], padded[4], padded[5]), len(shape))

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        shape = self.shape[MAX_RANK - self.rank :]
        check(broadcast(x.shape, shape) == shape, f"expand: {x} to {shape}")
        return (Type(shape, x.dtype),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        return [unbroadcast(build, dy, x.shape) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        return (np.broadcast_to(x, self.shape[MAX_RANK - self.rank :]).copy(),)
