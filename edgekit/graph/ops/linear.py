"""Matrix products: a linear layer and its two gradients. A 1×1 convolution in NHWC is one of these.

The leading axes of ``x`` are rows: ``x[..., K] @ w[K, N]``. The weight is stored input-major, so that a slice of the
input channels is a block of whole rows.

The gradients read int8 operands as the real numbers that they stand for (docs/quantization.md): a weight with its scales, one
an output channel, and an activation with its (scale, zero).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op, ShapeError
from edgekit.graph.ops.function import Function, Reduction, apply, derivative, mask_of
from edgekit.graph.value import DType, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node


#: an int8 activation's scale and zero point
QUANT = Type((2,))


def check(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeError(message)


def check_epilogue(y: Type, bias: Type | None, residual: Type | None) -> None:
    """``act(acc + bias + residual)``: the bias is one vector over the last axis, the residual has y's shape."""
    check(bias is None or bias.shape == y.shape[-1:], f"bias {bias} does not fit {y}")
    check(residual is None or residual == y, f"residual {residual} is not {y}")


def check_backward_epilogue(dx: Type, addend: Type | None, saved: Type | None, act: Function) -> None:
    """``(acc + addend) * act'(saved)``: saved is a BITS mask, or act's result or argument (see Function)."""
    check(addend is None or addend == dx, f"addend {addend} is not {dx}")
    check((saved is None) == (act is Function.IDENTITY), "saved goes with an activation")
    check(saved is None or saved.shape == dx.shape, f"saved {saved} does not fit {dx}")
    masked = saved is not None and saved.dtype is DType.BITS
    check(not masked or act.grad_needs_mask, f"{act.name} needs more than a mask")


def epilogue(acc: Array, bias: Array | None, residual: Array | None, act: Function) -> tuple[Array, Array, Array]:
    """(y, mask, pre) of ``y = act(pre)``, ``pre = acc + bias + residual``."""
    pre = acc if bias is None else acc + bias
    pre = pre if residual is None else pre + residual
    y = apply(act, pre)
    return y, mask_of(act, y), pre


def backward_epilogue(acc: Array, addend: Array | None, saved: Array | None, act: Function) -> Array:
    """``(acc + addend) * act'(saved)``."""
    total = acc if addend is None else acc + addend
    return total if saved is None else total * derivative(act, saved)


def check_real(what: str, operand: Type, parameters: Type | None, of_int8: Type) -> None:
    """The operand is float32, or int8 with the parameters (``of_int8``) that say which numbers it stands for."""
    wanted = (DType.F32, None) if parameters is None else (DType.I8, of_int8)
    check((operand.dtype, parameters) == wanted, f"{what} is {operand} with {parameters}")


def real_weight(w: Array, scale: Array | None) -> Array:
    """The numbers that an int8 weight stands for."""
    return w if scale is None else w.astype(scale.dtype) * scale


def real_activation(x: Array, quant: Array | None) -> Array:
    """The numbers that an int8 activation stands for."""
    return x if quant is None else (x.astype(quant.dtype) - np.rint(quant[1])) * quant[0]


def require_unfused(node: Node, act: Function) -> None:
    """Differentiation comes before fusion; what a fused node would need to save is not decided here.

    Raises:
        NotImplementedError: the node carries an activation.
    """
    if act is not Function.IDENTITY:
        raise NotImplementedError(f"the gradient of {node.op.name} with a fused {act.name}")


def sum_rows(build: Builder, dy: Value) -> Value:
    """The gradient of a vector over the last axis: dy summed over all the others."""
    from edgekit.graph.ops.elementwise import Reduce  # which builds on this module

    rows = len(dy.shape) - 1
    return build(Reduce(Reduction.SUM, (1 << rows) - 1), dy) if rows else dy


def weight_and_bias_gradient(
    build: Builder, grad: Op, x: Value, dy: Value, weight: bool, bias: bool, quant: Value | None = None
) -> tuple[Value | None, Value | None]:
    """One weight-gradient node for both, or for the weight alone; the bias alone does not need x."""
    if weight and bias:
        dw, db = build.emit(grad, x, dy, quant, results=(0, 1))
        return dw, db
    if weight:
        return build(grad, x, dy, quant), None
    return None, sum_rows(build, dy) if bias else None


@dataclass(frozen=True)
class Linear(Op):
    """y[..., N] = act(x[..., K] @ w[K, N] + bias[N] + residual[..., N]).

    ``mask`` is where act' is 1 (relu, relu6); ``pre`` is act's argument.
    """

    act: Function = Function.IDENTITY

    name: ClassVar[str] = "linear"
    code: ClassVar[int] = 1
    operands: ClassVar[tuple[str, ...]] = ("x", "w", "bias?", "residual?")
    results: ClassVar[tuple[str, ...]] = ("y", "mask?", "pre?")
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 3),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, w, bias, residual = operands
        assert x is not None and w is not None
        check(len(x.shape) >= 1 and len(w.shape) == 2 and x.shape[-1] == w.shape[0], f"linear: {x} @ {w}")
        y = Type((*x.shape[:-1], w.shape[1]))
        check_epilogue(y, bias, residual)
        return y, Type(y.shape, DType.BITS), y

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        require_unfused(node, self.act)
        x, w, *_ = node.inputs
        assert x is not None and w is not None
        dx = build(LinearInputGrad(), dy, w) if wanted[0] else None
        dw, db = weight_and_bias_gradient(build, LinearWeightGrad(), x, dy, wanted[1], wanted[2])
        return [dx, dw, db, dy if wanted[3] else None]

    def flops(self, node: Node) -> int:
        rows, w = node.inputs[0], node.inputs[1]
        assert rows is not None and w is not None
        return 2 * rows.type.size * w.type.size // rows.shape[-1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, w, bias, residual = operands
        assert x is not None and w is not None
        return epilogue(x @ w, bias, residual, self.act)


@dataclass(frozen=True)
class LinearInputGrad(Op):
    """dx[..., K] = (dy[..., N] @ w[K, N].T + addend[..., K]) * act'(saved[..., K]); ``scale[N]`` goes with an int8 w."""

    act: Function = Function.IDENTITY

    name: ClassVar[str] = "linear_input_grad"
    code: ClassVar[int] = 2
    operands: ClassVar[tuple[str, ...]] = ("dy", "w", "addend?", "saved?", "scale?")
    results: ClassVar[tuple[str, ...]] = ("dx",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 2),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        dy, w, addend, saved, scale = operands
        assert dy is not None and w is not None
        check(len(w.shape) == 2 and dy.shape[-1:] == w.shape[1:], f"linear_input_grad: {dy} @ {w}.T")
        check_real("linear_input_grad: w", w, scale, Type(w.shape[1:]))
        dx = Type((*dy.shape[:-1], w.shape[0]))
        check_backward_epilogue(dx, addend, saved, self.act)
        return (dx,)

    def flops(self, node: Node) -> int:
        rows, w = node.inputs[0], node.inputs[1]
        assert rows is not None and w is not None
        return 2 * rows.type.size * w.type.size // rows.shape[-1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        dy, w, addend, saved, scale = operands
        assert dy is not None and w is not None
        return (backward_epilogue(dy @ real_weight(w, scale).T, addend, saved, self.act),)


@dataclass(frozen=True)
class LinearWeightGrad(Op):
    """dw[K, N] = x[..., K].T @ dy[..., N] and db[N] = the sum of dy's rows.

    ``x`` may hold only the first K of the layer's input channels: then dw is that slice's gradient. ``quant`` goes with an
    int8 x.
    """

    name: ClassVar[str] = "linear_weight_grad"
    code: ClassVar[int] = 3
    operands: ClassVar[tuple[str, ...]] = ("x", "dy", "quant?")
    results: ClassVar[tuple[str, ...]] = ("dw", "db?")

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, dy, quant = operands
        assert x is not None and dy is not None
        check_real("linear_weight_grad: x", x, quant, QUANT)
        check(len(x.shape) >= 1 and x.shape[:-1] == dy.shape[:-1], f"linear_weight_grad: {x}.T @ {dy}")
        return Type((x.shape[-1], dy.shape[-1])), Type(dy.shape[-1:])

    def flops(self, node: Node) -> int:
        x, dy, _ = node.inputs
        assert x is not None and dy is not None
        return 2 * x.type.size * dy.shape[-1]

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, dy, quant = operands
        assert x is not None and dy is not None
        rows = dy.reshape(-1, dy.shape[-1])
        return real_activation(x, quant).reshape(-1, x.shape[-1]).T @ rows, rows.sum(axis=0)
