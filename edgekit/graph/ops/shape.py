"""Ops that move data without computing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.linear import check
from edgekit.graph.value import MAX_RANK, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node

Sextuple = tuple[int, int, int, int, int, int]


def padded(values: tuple[int, ...], fill: int) -> Sextuple:
    """Attribute words for up to MAX_RANK values; what is left over holds ``fill``."""
    check(len(values) <= MAX_RANK, f"rank {len(values)} is more than {MAX_RANK}")
    full = (*values, *(fill,) * (MAX_RANK - len(values)))
    return (full[0], full[1], full[2], full[3], full[4], full[5])


def strided(rank: int, axis: int, start: int, length: int, step: int) -> tuple[slice, ...]:
    """The index of elements ``start, start + step, …`` (``length`` of them) of one axis."""
    part = slice(start, start + (length - 1) * step + 1, step)
    return tuple(part if i == axis else slice(None) for i in range(rank))


@dataclass(frozen=True)
class Permute(Op):
    """y's axis i is x's axis ``perm[i]``; entries past the rank are -1."""

    perm: Sextuple = (0, 1, 2, 3, 4, 5)

    name: ClassVar[str] = "permute"
    code: ClassVar[int] = 20
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    @classmethod
    def of(cls, *perm: int) -> Permute:
        return cls(padded(perm, -1))

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(p for p in self.perm if p >= 0)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(sorted(self.axes) == list(range(len(x.shape))), f"permute: {x} by {self.axes}")
        return (Type(tuple(x.shape[p] for p in self.axes), x.dtype),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        inverse = sorted(range(len(self.axes)), key=lambda i: self.axes[i])
        return [build(Permute.of(*inverse), dy) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        return (np.ascontiguousarray(x.transpose(self.axes)),)


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in another shape. Always a view: it shares x's memory and no kernel runs."""

    shape: Sextuple = (1, 1, 1, 1, 1, 1)
    rank: int = 1

    name: ClassVar[str] = "reshape"
    code: ClassVar[int] = 21
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    @classmethod
    def to(cls, shape: tuple[int, ...]) -> Reshape:
        return cls(padded(shape, 1), len(shape))

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        shape = self.shape[: self.rank]
        check(math.prod(shape) == x.size, f"reshape: {x} to {shape}")
        return (Type(shape, x.dtype),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        return [build(Reshape.to(x.shape), dy) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        return (x.reshape(self.shape[: self.rank]),)


@dataclass(frozen=True)
class Slice(Op):
    """Elements ``start, start + step, …`` (``length`` of them) of one axis."""

    axis: int = 0
    start: int = 0
    length: int = 1
    step: int = 1

    name: ClassVar[str] = "slice"
    code: ClassVar[int] = 22
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(0 <= self.axis < len(x.shape) and self.step >= 1 and self.length >= 1 and self.start >= 0, f"slice: {x}, {self}")
        check(self.start + (self.length - 1) * self.step < x.shape[self.axis], f"slice: {x}, {self}")
        return (Type((*x.shape[: self.axis], self.length, *x.shape[self.axis + 1 :]), x.dtype),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        return [build(Unslice(self.axis, self.start, x.shape[self.axis], self.step), dy) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        return (x[strided(x.ndim, self.axis, self.start, self.length, self.step)].copy(),)


@dataclass(frozen=True)
class Unslice(Op):
    """The transpose of Slice: x's elements at ``start, start + step, …`` of an axis of ``size`` zeros."""

    axis: int = 0
    start: int = 0
    size: int = 1
    step: int = 1

    name: ClassVar[str] = "unslice"
    code: ClassVar[int] = 23
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(0 <= self.axis < len(x.shape) and self.step >= 1 and self.start >= 0, f"unslice: {x}, {self}")
        check(self.start + (x.shape[self.axis] - 1) * self.step < self.size, f"unslice: {x}, {self}")
        return (Type((*x.shape[: self.axis], self.size, *x.shape[self.axis + 1 :]), x.dtype),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        return [build(Slice(self.axis, self.start, x.shape[self.axis], self.step), dy) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        y = np.zeros((*x.shape[: self.axis], self.size, *x.shape[self.axis + 1 :]), x.dtype)
        y[strided(x.ndim, self.axis, self.start, x.shape[self.axis], self.step)] = x
        return (y,)


@dataclass(frozen=True)
class Concat(Op):
    """Up to eight arrays joined along one axis."""

    axis: int = 0

    name: ClassVar[str] = "concat"
    code: ClassVar[int] = 24
    operands: ClassVar[tuple[str, ...]] = ("x0", "x1", "x2?", "x3?", "x4?", "x5?", "x6?", "x7?")
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        parts = [p for p in operands if p is not None]
        first = parts[0]
        check(0 <= self.axis < len(first.shape), f"concat: {first}, axis {self.axis}")
        for p in parts:
            same = p.shape[: self.axis] == first.shape[: self.axis] and p.shape[self.axis + 1 :] == first.shape[self.axis + 1 :]
            check(same and len(p.shape) == len(first.shape) and p.dtype is first.dtype, f"concat: {first} and {p}")
        total = sum(p.shape[self.axis] for p in parts)
        return (Type((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]), first.dtype),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        grads: list[Value | None] = []
        start = 0
        for part, want in zip(node.inputs, wanted, strict=True):
            length = 0 if part is None else part.shape[self.axis]
            grads.append(build(Slice(self.axis, start, length), dy) if want and part is not None else None)
            start += length
        return grads

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        return (np.concatenate([p for p in operands if p is not None], axis=self.axis),)
