"""Pooling in NHWC. ``padding`` is (top, bottom, left, right); ceil mode is a larger bottom and right padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.conv import Pair, Quad, pad, taps, unpad, window_output
from edgekit.graph.ops.linear import check
from edgekit.graph.value import DType, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node

_ONE = (1, 1)


def window_sizes(size: Pair, kernel: Pair, stride: Pair, padding: Quad, count_padding: bool) -> Array:
    """What AvgPool2d divides each window's sum by: [1, OH, OW, 1]."""
    if count_padding:
        return np.full((1, 1, 1, 1), kernel[0] * kernel[1])
    inside = pad(np.ones((1, *size, 1), np.int64), padding)
    out = window_output(size, kernel, stride, padding, _ONE)
    return np.asarray(sum(view for _, _, view in taps(inside, kernel, stride, _ONE, out)))


def bins(size: int, output: int) -> Array:
    """The matrix [output, size] whose row i averages bin i of an axis, as torch.nn.AdaptiveAvgPool2d places its bins."""
    matrix = np.zeros((output, size))
    for i in range(output):
        start, end = i * size // output, -(-(i + 1) * size // output)
        matrix[i, start:end] = 1.0 / (end - start)
    return matrix


@dataclass(frozen=True)
class MaxPool2d(Op):
    """The largest element of each window; padding never wins.

    ``index`` is its place in the window, kh * kernel_w + kw, the first among equals.
    """

    kernel: Pair = (2, 2)
    stride: Pair = (2, 2)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    name: ClassVar[str] = "max_pool2d"
    code: ClassVar[int] = 30
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y", "index?")

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(len(x.shape) == 4 and self.kernel[0] * self.kernel[1] <= 256, f"max_pool2d: {x}, kernel {self.kernel}")
        n, h, w, c = x.shape
        y = (n, *window_output((h, w), self.kernel, self.stride, self.padding, self.dilation), c)
        return Type(y), Type(y, DType.U8)

    def saves(self) -> tuple[int, ...]:
        return (1,)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        grad = MaxPool2dGrad((x.shape[1], x.shape[2]), self.kernel, self.stride, self.padding, self.dilation)
        return [build(grad, dy, node.outputs[1]) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return super().flops(node) * self.kernel[0] * self.kernel[1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        out = window_output((x.shape[1], x.shape[2]), self.kernel, self.stride, self.padding, self.dilation)
        views = taps(pad(x, self.padding, -np.inf), self.kernel, self.stride, self.dilation, out)
        stack = np.stack([view for _, _, view in views])
        return stack.max(axis=0), stack.argmax(axis=0).astype(np.uint8)


@dataclass(frozen=True)
class MaxPool2dGrad(Op):
    """dx[N,H,W,C]: every dy added at its window's index; ``size`` is (H, W)."""

    size: Pair = (1, 1)
    kernel: Pair = (2, 2)
    stride: Pair = (2, 2)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    name: ClassVar[str] = "max_pool2d_grad"
    code: ClassVar[int] = 31
    operands: ClassVar[tuple[str, ...]] = ("dy", "index")
    results: ClassVar[tuple[str, ...]] = ("dx",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        dy, index = operands
        assert dy is not None and index is not None
        out = window_output(self.size, self.kernel, self.stride, self.padding, self.dilation)
        check(len(dy.shape) == 4 and dy.shape[1:3] == out, f"max_pool2d_grad: {dy} is not the gradient of {out}")
        check(index == Type(dy.shape, DType.U8), f"max_pool2d_grad: {dy}, {index}")
        return (Type((dy.shape[0], *self.size, dy.shape[3])),)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        dy, index = operands
        assert dy is not None and index is not None
        padded = pad(np.zeros((dy.shape[0], *self.size, dy.shape[3]), dy.dtype), self.padding)
        for i, j, view in taps(padded, self.kernel, self.stride, self.dilation, (dy.shape[1], dy.shape[2])):
            view += np.where(index == i * self.kernel[1] + j, dy, 0.0)
        return (unpad(padded, self.padding).copy(),)


@dataclass(frozen=True)
class AvgPool2d(Op):
    """The mean of each window: divided by kh * kw where ``count_padding``, else by the elements inside the input."""

    kernel: Pair = (2, 2)
    stride: Pair = (2, 2)
    padding: Quad = (0, 0, 0, 0)
    count_padding: bool = True

    name: ClassVar[str] = "avg_pool2d"
    code: ClassVar[int] = 32
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(len(x.shape) == 4, f"avg_pool2d: {x}")
        n, h, w, c = x.shape
        return (Type((n, *window_output((h, w), self.kernel, self.stride, self.padding, (1, 1)), c)),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        grad = AvgPool2dGrad((x.shape[1], x.shape[2]), self.kernel, self.stride, self.padding, self.count_padding)
        return [build(grad, dy) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return super().flops(node) * self.kernel[0] * self.kernel[1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        size = (x.shape[1], x.shape[2])
        out = window_output(size, self.kernel, self.stride, self.padding, _ONE)
        total = sum(view for _, _, view in taps(pad(x, self.padding), self.kernel, self.stride, _ONE, out))
        divisor = window_sizes(size, self.kernel, self.stride, self.padding, self.count_padding)
        return (np.asarray(total / divisor.astype(x.dtype)),)


@dataclass(frozen=True)
class AvgPool2dGrad(Op):
    """dx[N,H,W,C] of AvgPool2d; ``size`` is (H, W)."""

    size: Pair = (1, 1)
    kernel: Pair = (2, 2)
    stride: Pair = (2, 2)
    padding: Quad = (0, 0, 0, 0)
    count_padding: bool = True

    name: ClassVar[str] = "avg_pool2d_grad"
    code: ClassVar[int] = 33
    operands: ClassVar[tuple[str, ...]] = ("dy",)
    results: ClassVar[tuple[str, ...]] = ("dx",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (dy,) = operands
        assert dy is not None
        out = window_output(self.size, self.kernel, self.stride, self.padding, (1, 1))
        check(len(dy.shape) == 4 and dy.shape[1:3] == out, f"avg_pool2d_grad: {dy} is not the gradient of {out}")
        return (Type((dy.shape[0], *self.size, dy.shape[3])),)

    def flops(self, node: Node) -> int:
        return sum(v.type.size for v in node.reads) * self.kernel[0] * self.kernel[1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (dy,) = operands
        assert dy is not None
        divisor = window_sizes(self.size, self.kernel, self.stride, self.padding, self.count_padding)
        share = dy / divisor.astype(dy.dtype)
        padded = pad(np.zeros((dy.shape[0], *self.size, dy.shape[3]), dy.dtype), self.padding)
        for _, _, view in taps(padded, self.kernel, self.stride, _ONE, (dy.shape[1], dy.shape[2])):
            view += share
        return (unpad(padded, self.padding).copy(),)


@dataclass(frozen=True)
class AdaptiveAvgPool2d(Op):
    """Mean over bins [floor(i H / OH), ceil((i + 1) H / OH)); ``output`` is (OH, OW)."""

    output: Pair = (1, 1)

    name: ClassVar[str] = "adaptive_avg_pool2d"
    code: ClassVar[int] = 34
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(len(x.shape) == 4 and min(self.output) >= 1, f"adaptive_avg_pool2d: {x} to {self.output}")
        return (Type((x.shape[0], *self.output, x.shape[3])),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        (x,) = node.inputs
        assert x is not None
        return [build(AdaptiveAvgPool2dGrad((x.shape[1], x.shape[2])), dy) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return sum(v.type.size for v in node.reads)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        rows, columns = (bins(n, o).astype(x.dtype) for n, o in zip(x.shape[1:3], self.output, strict=True))
        return (np.einsum("ph,qw,nhwc->npqc", rows, columns, x, optimize=True),)


@dataclass(frozen=True)
class AdaptiveAvgPool2dGrad(Op):
    """dx[N,H,W,C] of AdaptiveAvgPool2d; ``size`` is (H, W)."""

    size: Pair = (1, 1)

    name: ClassVar[str] = "adaptive_avg_pool2d_grad"
    code: ClassVar[int] = 35
    operands: ClassVar[tuple[str, ...]] = ("dy",)
    results: ClassVar[tuple[str, ...]] = ("dx",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (dy,) = operands
        assert dy is not None
        check(len(dy.shape) == 4 and min(self.size) >= 1, f"adaptive_avg_pool2d_grad: {dy}, size {self.size}")
        return (Type((dy.shape[0], *self.size, dy.shape[3])),)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (dy,) = operands
        assert dy is not None
        rows, columns = (bins(n, o).astype(dy.dtype) for n, o in zip(self.size, dy.shape[1:3], strict=True))
        return (np.einsum("ph,qw,npqc->nhwc", rows, columns, dy, optimize=True),)
