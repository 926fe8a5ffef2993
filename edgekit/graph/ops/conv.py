"""2-D convolution in NHWC with weights [kh, kw, C/groups, O], and its two gradients.

``padding`` is (top, bottom, left, right). Depthwise is ``groups == C``; a 1-D convolution is one of height 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import (
    QUANT,
    backward_epilogue,
    check,
    check_backward_epilogue,
    check_epilogue,
    check_real,
    epilogue,
    real_activation,
    real_weight,
    require_unfused,
    weight_and_bias_gradient,
)
from edgekit.graph.value import DType, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node

Pair = tuple[int, int]
Quad = tuple[int, int, int, int]


class Algorithm(IntEnum):
    """How a convolution is computed; the numbers differ in rounding. A backend that lacks an algorithm computes a product."""

    AUTO = 0  #: as the backend has it: by the number of results
    PRODUCT = 1  #: a matrix product over patches (implicit GEMM)
    WINOGRAD = 2  #: F(2 × 2, 3 × 3) of Lavin and Gray, 2016; where ``winograd_fits``


#: What nobody measured: with so many results (images × height × width) Winograd's algorithm pays for its transform of the filter.
WINOGRAD_RESULTS = 96


def winograd_fits(kernel: Pair, stride: Pair, dilation: Pair, groups: int, *channels: int) -> bool:
    """Whether there is Winograd's algorithm for this window, and these channels: those that are summed over, and of a weight
    gradient those of dy, whole vectors in every instruction set."""
    return (kernel, stride, dilation, groups) == ((3, 3), (1, 1), (1, 1), 1) and not any(c % 16 for c in channels)


def check_algorithm(op: Conv2d | Conv2dInputGrad | Conv2dWeightGrad, kernel: Pair, *channels: int) -> None:
    """Refuse Winograd's algorithm where there is none.

    Raises:
        ShapeError: as it says.
    """
    fits = op.algorithm is not Algorithm.WINOGRAD or winograd_fits(kernel, op.stride, op.dilation, op.groups, *channels)
    check(
        fits,
        f"{op.name}: Winograd's algorithm is for dense 3×3 of stride 1 and multiples of 16 channels, not {kernel} {channels}",
    )


def window_output(size: Pair, kernel: Pair, stride: Pair, padding: Quad, dilation: Pair, *, crop: bool = False) -> Pair:
    """Height and width of the result of sliding a window: floor((in + pad - dilation (k-1) - 1) / stride) + 1. With ``crop``
    padding may be negative, as long as a row and a column are left.

    Raises:
        ShapeError: a window does not fit, or an attribute is out of range.
    """
    least = -min(size) + 1 if crop else 0
    check(min(*stride, *dilation, *kernel) >= 1 and min(padding) >= least, "stride, dilation, kernel ≥ 1; padding ≥ 0")
    pads = (padding[0] + padding[1], padding[2] + padding[3])
    spans = [s + p - d * (k - 1) - 1 for s, p, d, k in zip(size, pads, dilation, kernel, strict=True)]
    check(min(spans) >= 0, f"a {kernel} window does not fit an input of {size}")
    return (spans[0] // stride[0] + 1, spans[1] // stride[1] + 1)


def pad(x: Array, padding: Quad, fill: float = 0.0) -> Array:
    """x[N,H,W,C] with ``fill`` around its height and width; always a new array."""
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)


def unpad(x: Array, padding: Quad) -> Array:
    """The transpose of ``pad``: the inside."""
    top, bottom, left, right = padding
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right, :]


def taps(padded: Array, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Iterator[tuple[int, int, Array]]:
    """(i, j, view[N,OH,OW,C]) for every kernel position: what that position sees of the padded input in all windows."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (out[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, padded[:, rows, columns, :]


def split_groups(x: Array, groups: int) -> Array:
    """[..., G·C] as [rows, G, C]."""
    return x.reshape(-1, groups, x.shape[-1] // groups)


@dataclass(frozen=True)
class Conv2d(Op):
    """y[N,OH,OW,O] = act(conv(x[N,H,W,C], w[kh,kw,C/groups,O]) + bias[O] + residual[N,OH,OW,O]); mask and pre as Linear."""

    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    act: Function = Function.IDENTITY
    algorithm: Algorithm = Algorithm.AUTO

    name: ClassVar[str] = "conv2d"
    code: ClassVar[int] = 4
    operands: ClassVar[tuple[str, ...]] = ("x", "w", "bias?", "residual?")
    results: ClassVar[tuple[str, ...]] = ("y", "mask?", "pre?")
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 3),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, w, bias, residual = operands
        assert x is not None and w is not None
        check(len(x.shape) == 4 and len(w.shape) == 4, f"conv2d: {x}, {w}")
        n, h, wd, c = x.shape
        kh, kw, cg, o = w.shape
        check(self.groups >= 1 and c == cg * self.groups and o % self.groups == 0, f"conv2d: {x}, {w}, groups {self.groups}")
        y = Type((n, *window_output((h, wd), (kh, kw), self.stride, self.padding, self.dilation), o))
        check_algorithm(self, (kh, kw), c)
        check_epilogue(y, bias, residual)
        return y, Type(y.shape, DType.BITS), y

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        require_unfused(node, self.act)
        x, w, *_ = node.inputs
        assert x is not None and w is not None
        size, kernel = (x.shape[1], x.shape[2]), (w.shape[0], w.shape[1])
        window = (self.stride, self.padding, self.dilation, self.groups)
        dx = build(Conv2dInputGrad(size, *window), dy, w) if wanted[0] else None
        dw, db = weight_and_bias_gradient(build, Conv2dWeightGrad(kernel, *window), x, dy, wanted[1], wanted[2])
        return [dx, dw, db, dy if wanted[3] else None]

    def flops(self, node: Node) -> int:
        x, w, *_ = node.inputs
        assert x is not None and w is not None
        return 2 * self.infer(*(None if v is None else v.type for v in node.inputs))[0].size * w.type.size // w.shape[3]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, w, bias, residual = operands
        assert x is not None and w is not None
        kernel = (w.shape[0], w.shape[1])
        out = window_output((x.shape[1], x.shape[2]), kernel, self.stride, self.padding, self.dilation)
        acc = np.zeros((x.shape[0], *out, w.shape[3]), x.dtype)
        for i, j, view in taps(pad(x, self.padding), kernel, self.stride, self.dilation, out):
            weights = w[i, j].reshape(w.shape[2], self.groups, -1)
            acc += np.einsum("rgc,cgo->rgo", split_groups(view, self.groups), weights, optimize=True).reshape(acc.shape)
        return epilogue(acc, bias, residual, self.act)


@dataclass(frozen=True)
class Conv2dInputGrad(Op):
    """dx[N,H,W,C] = (the transpose of conv applied to dy[N,OH,OW,O] + addend) * act'(saved); ``size`` is (H, W).

    ``scale[O]`` goes with an int8 w.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    act: Function = Function.IDENTITY
    algorithm: Algorithm = Algorithm.AUTO

    name: ClassVar[str] = "conv2d_input_grad"
    code: ClassVar[int] = 5
    operands: ClassVar[tuple[str, ...]] = ("dy", "w", "addend?", "saved?", "scale?")
    results: ClassVar[tuple[str, ...]] = ("dx",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 2),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        dy, w, addend, saved, scale = operands
        assert dy is not None and w is not None
        check_real("conv2d_input_grad: w", w, scale, Type(w.shape[3:]))
        check(len(dy.shape) == 4 and len(w.shape) == 4 and dy.shape[3] == w.shape[3], f"conv2d_input_grad: {dy}, {w}")
        kh, kw, cg, o = w.shape
        check(self.groups >= 1 and o % self.groups == 0, f"conv2d_input_grad: {w}, groups {self.groups}")
        out = window_output(self.size, (kh, kw), self.stride, self.padding, self.dilation)
        check(dy.shape[1:3] == out, f"conv2d_input_grad: {dy} is not the gradient of {out}")
        check_algorithm(self, (kh, kw), o)
        dx = Type((dy.shape[0], *self.size, cg * self.groups))
        check_backward_epilogue(dx, addend, saved, self.act)
        return (dx,)

    def shared(self) -> tuple[tuple[int, int], ...]:
        """A grouped one of stride 1 can write over dy too; the planner checks that their types are the same."""
        return (*self.inplace, (0, 0)) if self.groups > 1 and self.stride == (1, 1) else self.inplace

    def flops(self, node: Node) -> int:
        dy, w, *_ = node.inputs
        assert dy is not None and w is not None
        return 2 * dy.type.size * w.type.size // w.shape[3]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        dy, w, addend, saved, scale = operands
        assert dy is not None and w is not None
        w = real_weight(w, scale)
        dx = np.zeros((dy.shape[0], *self.size, w.shape[2] * self.groups), dy.dtype)
        padded = pad(dx, self.padding)
        rows = split_groups(dy, self.groups)
        for i, j, view in taps(padded, (w.shape[0], w.shape[1]), self.stride, self.dilation, (dy.shape[1], dy.shape[2])):
            weights = w[i, j].reshape(w.shape[2], self.groups, -1)
            view += np.einsum("rgo,cgo->rgc", rows, weights, optimize=True).reshape(view.shape)
        return (backward_epilogue(unpad(padded, self.padding), addend, saved, self.act),)


@dataclass(frozen=True)
class Conv2dWeightGrad(Op):
    """dw[kh,kw,C/groups,O] from x[N,H,W,C] and dy[N,OH,OW,O], and db[O]; ``kernel`` is (kh, kw).

    ``x`` may hold only the first channels of each group: then dw is that slice's gradient. ``quant`` goes with an int8 x.
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    algorithm: Algorithm = Algorithm.AUTO

    name: ClassVar[str] = "conv2d_weight_grad"
    code: ClassVar[int] = 6
    operands: ClassVar[tuple[str, ...]] = ("x", "dy", "quant?")
    results: ClassVar[tuple[str, ...]] = ("dw", "db?")

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, dy, quant = operands
        assert x is not None and dy is not None
        check_real("conv2d_weight_grad: x", x, quant, QUANT)
        check(len(x.shape) == 4 and len(dy.shape) == 4 and x.shape[0] == dy.shape[0], f"conv2d_weight_grad: {x}, {dy}")
        c, o = x.shape[3], dy.shape[3]
        check(
            self.groups >= 1 and c % self.groups == 0 and o % self.groups == 0,
            f"conv2d_weight_grad: {x}, {dy}, groups {self.groups}",
        )
        out = window_output((x.shape[1], x.shape[2]), self.kernel, self.stride, self.padding, self.dilation)
        check(dy.shape[1:3] == out, f"conv2d_weight_grad: {dy} is not the gradient of {out}")
        check_algorithm(self, self.kernel, c, o)
        return Type((*self.kernel, c // self.groups, o)), Type((o,))

    def flops(self, node: Node) -> int:
        x, dy, _ = node.inputs
        assert x is not None and dy is not None
        return 2 * dy.type.size * self.kernel[0] * self.kernel[1] * x.shape[3] // self.groups

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, dy, quant = operands
        assert x is not None and dy is not None
        x = real_activation(x, quant)
        c, o = x.shape[3] // self.groups, dy.shape[3]
        dw = np.zeros((*self.kernel, c, o), x.dtype)
        rows = split_groups(dy, self.groups)
        for i, j, view in taps(pad(x, self.padding), self.kernel, self.stride, self.dilation, (dy.shape[1], dy.shape[2])):
            dw[i, j] = np.einsum("rgc,rgo->cgo", split_groups(view, self.groups), rows, optimize=True).reshape(c, o)
        return dw, dy.sum(axis=(0, 1, 2))
