"""Ops over int8 arrays: an int8 element q stands for the real number scale · (q - zero).

Activations have one scale and zero point an array, which stand in an f32[2] operand ``…_quant`` = (scale, zero); weights are
symmetric (zero 0) with one scale an output channel, an f32[O] operand. Results are exact integers on every backend:
docs/quantization.md has the arithmetic. Gradients are those of the real numbers, straight through the rounding, and 0 where a
result was clamped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.conv import Conv2dInputGrad, Conv2dWeightGrad, Pair, Quad, pad, split_groups, taps, window_output
from edgekit.graph.ops.elementwise import ApplyMask
from edgekit.graph.ops.linear import QUANT, check, weight_and_bias_gradient
from edgekit.graph.ops.pool import AdaptiveAvgPool2dGrad
from edgekit.graph.ops.shape import Concat, Slice
from edgekit.graph.value import DType, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node

LOW, HIGH = -128, 127
MOST_TERMS = 1 << 16  #: products in one int32 sum: 2^16 · 255 · 127 < 2^31
_SUM_BITS, _ADD_BITS = 31, 20  #: of the fixed-point factors
_INT32 = np.iinfo(np.int32)


def zero_of(quant: Array) -> int:
    """The zero point of (scale, zero), as every backend reads it."""
    return int(np.clip(np.rint(np.nan_to_num(quant[1])), LOW, HIGH))


def scale_of(quant: Array) -> np.float64:
    """The scale, in the double precision that factors are computed in."""
    return np.float64(np.float32(quant[0]))


def fixed_point(factor: Array) -> tuple[Array, Array]:
    """(m, shift) with factor ≈ m / 2^shift, 2^30 ≤ m < 2^31; m = 0 where the factor is not in [2^-31, 2^16]."""
    factor = np.where((factor >= 2.0**-31) & (factor <= 2.0**16), factor, 0.0)
    fraction, exponent = np.frexp(factor)
    m = np.rint(np.ldexp(fraction, _SUM_BITS)).astype(np.int64)
    carried = m == 1 << _SUM_BITS
    return np.where(carried, m >> 1, m), (_SUM_BITS - exponent - carried).astype(np.int64)


def rescale(total: Array, factor: Array, zero: int) -> Array:
    """floor(total · factor + 1/2) + zero by integers alone; not clamped. ``total`` is first saturated to int32."""
    m, shift = fixed_point(factor)
    half = np.int64(1) << (shift - 1)
    return np.asarray(((np.clip(total, _INT32.min, _INT32.max).astype(np.int64) * m + half) >> shift) + zero)


def clamp(q: Array) -> tuple[Array, Array]:
    """(int8, mask): the mask is where nothing was cut off."""
    y = np.clip(q, LOW, HIGH)
    return y.astype(np.int8), np.asarray(y == q)


def _results(y: tuple[int, ...]) -> tuple[Type, Type]:
    return Type(y, DType.I8), Type(y, DType.BITS)


def _check_quants(*quants: Type | None) -> None:
    check(all(q == QUANT for q in quants), "a scale and zero point are f32[2]")


def _is_int8(t: Type | None) -> bool:
    return t is not None and t.dtype is DType.I8


def _positive(padding: Quad, sign: int = 1) -> Quad:
    """What is added around the image; with -1, what is left out."""
    top, bottom, left, right = (max(sign * p, 0) for p in padding)
    return top, bottom, left, right


def _cropped(x: Array, by: Quad) -> Array:
    top, bottom, left, right = by
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


class _Clamped:
    """What ops with an int8 result y and a mask have in common."""

    results: ClassVar[tuple[str, ...]] = ("y", "mask?")

    def saves(self) -> tuple[int, ...]:
        return (1,)

    def through(self, build: Builder, node: Node, dy: Value) -> Value:
        """The gradient of what was clamped."""
        mask = node.outputs[1]
        assert mask is not None
        return build(ApplyMask(), dy, mask)


@dataclass(frozen=True)
class Quantize(_Clamped, Op):
    """y = clamp(rint(x / scale) + zero), in float32, ties to even; NaN becomes zero."""

    name: ClassVar[str] = "quantize"
    code: ClassVar[int] = 60
    operands: ClassVar[tuple[str, ...]] = ("x", "quant")

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, quant = operands
        assert x is not None
        check(x.dtype is DType.F32, f"quantize: {x}")
        _check_quants(quant)
        return _results(x.shape)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        return [self.through(build, node, dy) if wanted[0] else None, None]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, quant = operands
        assert x is not None and quant is not None
        with np.errstate(all="ignore"):
            whole = np.nan_to_num(np.rint(x.astype(np.float32) / np.float32(quant[0])), nan=0.0, posinf=1e6, neginf=-1e6)
        return clamp(np.clip(whole, -1e6, 1e6).astype(np.int64) + zero_of(quant))


@dataclass(frozen=True)
class Dequantize(Op):
    """y = scale · (x - zero)."""

    name: ClassVar[str] = "dequantize"
    code: ClassVar[int] = 61
    operands: ClassVar[tuple[str, ...]] = ("x", "quant")
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, quant = operands
        assert x is not None
        check(_is_int8(x), f"dequantize: {x}")
        _check_quants(quant)
        return (Type(x.shape),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        return [dy if wanted[0] else None, None]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, quant = operands
        assert x is not None and quant is not None
        return (np.asarray((x.astype(quant.dtype) - zero_of(quant)) * quant[0]),)


@dataclass(frozen=True)
class QConv2d(_Clamped, Op):
    """y = clamp(rescale(conv(x - zero, w) + bias, x_scale · w_scale[o] / y_scale) + y_zero), dense or depthwise.

    The bias counts in units of x_scale · w_scale[o]. relu and relu6 are y's range: its zero point is -128 then. A ``real``
    result, for ops that compute in float32, is float32(total · (x_scale · w_scale[o])), neither rescaled nor clamped.

    ``rest`` are the weights of a dense convolution's input channels after those of ``w``: what is trained in part lies in two
    arrays, of which only one is state. A dense one's negative padding leaves out rows or columns of x (compiler/bands.py).
    """

    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    real: bool = False

    name: ClassVar[str] = "q_conv2d"
    code: ClassVar[int] = 62
    operands: ClassVar[tuple[str, ...]] = ("x", "w", "w_scale", "x_quant", "y_quant?", "bias?", "rest?")

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, w, w_scale, x_quant, y_quant, bias, rest = operands
        assert x is not None and w is not None
        check(_is_int8(x) and _is_int8(w) and len(x.shape) == 4 and len(w.shape) == 4, f"q_conv2d: {x}, {w}")
        n, h, wd, c = x.shape
        kh, kw, cg, o = w.shape
        if rest is not None:
            pieces = _is_int8(rest) and len(rest.shape) == 4 and (*rest.shape[:2], rest.shape[3]) == (kh, kw, o)
            check(pieces and self.groups == 1, f"q_conv2d: {rest} is no rest of {w}, groups {self.groups}")
            cg += rest.shape[2]
        dense, depthwise = self.groups == 1 and cg == c, self.groups == c == o and cg == 1
        check(dense or depthwise, f"q_conv2d: {x}, {w}, groups {self.groups}")
        check(dense or min(self.padding) >= 0, f"q_conv2d: padding {self.padding} of a depthwise convolution")
        check(kh * kw * cg <= MOST_TERMS, f"q_conv2d: sums of {kh * kw * cg} products do not fit int32")
        check(bias in (None, Type((o,), DType.I32)) and w_scale == Type((o,)), f"q_conv2d: {w}, {bias}, {w_scale}")
        _check_quants(x_quant)
        check(y_quant == (None if self.real else QUANT), f"q_conv2d: the result's scale is {y_quant}")
        y = (n, *window_output((h, wd), (kh, kw), self.stride, self.padding, self.dilation, crop=True), o)
        return (Type(y), Type(y, DType.BITS)) if self.real else _results(y)

    def shared(self) -> tuple[tuple[int, int], ...]:
        """A depthwise convolution can write over its input, row by row; the planner checks that their types are the same."""
        return ((0, 0),) if self.groups > 1 and self.stride == (1, 1) else ()

    def saves(self) -> tuple[int, ...]:
        return () if self.real else (1,)

    def through(self, build: Builder, node: Node, dy: Value) -> Value:
        return dy if self.real else super().through(build, node, dy)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        x, w, w_scale, x_quant, _, _, rest = node.inputs
        assert x is not None and w is not None
        dy = self.through(build, node, dy)
        window = (self.stride, self.padding, self.dilation, self.groups)
        dx = None
        if wanted[0]:
            back = Conv2dInputGrad((x.shape[1], x.shape[2]), *window)
            pieces = [build(back, dy, piece, None, None, w_scale) for piece in (w, rest) if piece is not None]
            dx = pieces[0] if rest is None else build(Concat(3), *pieces)
        if rest is not None and wanted[1]:
            x = build(Slice(3, 0, w.shape[2]), x)
        grad = Conv2dWeightGrad((w.shape[0], w.shape[1]), *window)
        dw, db = weight_and_bias_gradient(build, grad, x, dy, wanted[1], wanted[5], x_quant)
        return [dx, dw, None, None, None, db, None]

    def flops(self, node: Node) -> int:
        w, rest, y = node.inputs[1], node.inputs[6], node.outputs[0]
        assert w is not None and y is not None
        return 2 * y.type.size * (w.type.size + (rest.type.size if rest is not None else 0)) // w.shape[3]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, w, w_scale, x_quant, y_quant, bias, rest = operands
        assert x is not None and w is not None and w_scale is not None and x_quant is not None
        w = w if rest is None else np.concatenate([w, rest], axis=2)
        kernel = (w.shape[0], w.shape[1])
        out = window_output((x.shape[1], x.shape[2]), kernel, self.stride, self.padding, self.dilation, crop=True)
        total = np.zeros((x.shape[0], *out, w.shape[3]))  # float64 holds these sums exactly
        centred = _cropped(pad(x.astype(np.float64) - zero_of(x_quant), _positive(self.padding)), _positive(self.padding, -1))
        for i, j, view in taps(centred, kernel, self.stride, self.dilation, out):
            weights = w[i, j].astype(np.float64).reshape(w.shape[2], self.groups, -1)
            total += np.einsum("rgc,cgo->rgo", split_groups(view, self.groups), weights, optimize=True).reshape(total.shape)
        total = total if bias is None else total + bias
        unit = scale_of(x_quant) * w_scale.astype(np.float32).astype(np.float64)
        if y_quant is None:
            return (np.clip(total, _INT32.min, _INT32.max) * unit).astype(x_quant.dtype), np.ones(total.shape, np.bool_)
        with np.errstate(all="ignore"):
            factor = unit / scale_of(y_quant)
        return clamp(rescale(total, factor, zero_of(y_quant)))


@dataclass(frozen=True)
class QAdd(_Clamped, Op):
    """y = clamp(floor(a_scale / y_scale · (a - a_zero) + b_scale / y_scale · (b - b_zero) + 1/2) + y_zero), both factors in
    fixed point with 20 bits of the larger: int32 holds all of it."""

    name: ClassVar[str] = "q_add"
    code: ClassVar[int] = 63
    operands: ClassVar[tuple[str, ...]] = ("a", "b", "a_quant", "b_quant", "y_quant")
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        a, b, *quants = operands
        assert a is not None
        check(_is_int8(a) and a == b, f"q_add: {a}, {b}")
        _check_quants(*quants)
        return _results(a.shape)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        dy = self.through(build, node, dy)
        return [dy if wanted[0] else None, dy if wanted[1] else None, None, None, None]

    @staticmethod
    def factors(a_quant: Array, b_quant: Array, y_quant: Array) -> tuple[int, int, int]:
        """(ma, mb, shift); both 0 where a factor is negative or the larger is not in [2^-10, 2^10]."""
        with np.errstate(all="ignore"):
            a, b = scale_of(a_quant) / scale_of(y_quant), scale_of(b_quant) / scale_of(y_quant)
        if not (a >= 0 and b >= 0 and 2.0**-10 <= max(a, b) <= 2.0**10):
            return 0, 0, 1
        shift = _ADD_BITS - int(np.frexp(max(a, b))[1])
        return int(np.rint(np.ldexp(a, shift))), int(np.rint(np.ldexp(b, shift))), shift

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        a, b, a_quant, b_quant, y_quant = operands
        assert a is not None and b is not None and a_quant is not None and b_quant is not None and y_quant is not None
        ma, mb, shift = self.factors(a_quant, b_quant, y_quant)
        total = (a.astype(np.int64) - zero_of(a_quant)) * ma + (b.astype(np.int64) - zero_of(b_quant)) * mb
        return clamp(((total + (1 << (shift - 1))) >> shift) + zero_of(y_quant))


@dataclass(frozen=True)
class QMean(_Clamped, Op):
    """y[N,1,1,C] = clamp(rescale(the sum of x - x_zero over height and width, x_scale / (y_scale · H · W)) + y_zero)."""

    name: ClassVar[str] = "q_mean"
    code: ClassVar[int] = 64
    operands: ClassVar[tuple[str, ...]] = ("x", "x_quant", "y_quant")

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, *quants = operands
        assert x is not None
        check(_is_int8(x) and len(x.shape) == 4 and x.shape[1] * x.shape[2] <= 1 << 22, f"q_mean: {x}")
        _check_quants(*quants)
        return _results((x.shape[0], 1, 1, x.shape[3]))

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        x = node.inputs[0]
        assert x is not None
        if not wanted[0]:
            return [None, None, None]
        return [build(AdaptiveAvgPool2dGrad((x.shape[1], x.shape[2])), self.through(build, node, dy)), None, None]

    def flops(self, node: Node) -> int:
        return next(node.reads).type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, x_quant, y_quant = operands
        assert x is not None and x_quant is not None and y_quant is not None
        total = (x.astype(np.int64) - zero_of(x_quant)).sum(axis=(1, 2), keepdims=True)
        with np.errstate(all="ignore"):
            factor = scale_of(x_quant) / (scale_of(y_quant) * (x.shape[1] * x.shape[2]))
        return clamp(rescale(total, np.asarray(factor), zero_of(y_quant)))
