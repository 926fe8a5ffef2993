"""Elementwise functions, arithmetic with broadcasting, dropout, and what does nothing."""

from __future__ import annotations

import math
from typing import Any

from torch import fx

from edgekit.frontends.torch.lowering import Lowering, Result, lowers
from edgekit.graph.ops.elementwise import Binary, Dropout, Unary
from edgekit.graph.ops.function import Arithmetic, Function
from edgekit.graph.value import DType, Value

UNARY = {
    "relu": Function.RELU,
    "relu6": Function.RELU6,
    "hardswish": Function.HARDSWISH,
    "hardsigmoid": Function.HARDSIGMOID,
    "sigmoid": Function.SIGMOID,
    "silu": Function.SILU,
    "tanh": Function.TANH,
    "exp": Function.EXP,
    "log": Function.LOG,
    "sqrt": Function.SQRT,
    "rsqrt": Function.RSQRT,
    "neg": Function.NEG,
    "abs": Function.ABS,
    "reciprocal": Function.RECIPROCAL,
    "square": Function.SQUARE,
}

BINARY = {
    "mul.Tensor": Arithmetic.MUL,
    "mul.Scalar": Arithmetic.MUL,
    "div.Tensor": Arithmetic.DIV,
    "div.Scalar": Arithmetic.DIV,
    "maximum": Arithmetic.MAXIMUM,
    "minimum": Arithmetic.MINIMUM,
}

POWERS = {0.5: Function.SQRT, -0.5: Function.RSQRT, -1: Function.RECIPROCAL, 2: Function.SQUARE}


def _enter_tables() -> None:
    for name, fn in UNARY.items():
        lowers(name)(lambda to, x, fn=fn: to(Unary(fn), to.value(x)))
    for name, arithmetic in BINARY.items():
        lowers(name)(lambda to, a, b, fn=arithmetic: binary(to, fn, a, b))


_enter_tables()


def binary(to: Lowering, fn: Arithmetic, a: Any, b: Any) -> Value:
    """fn of two operands, each an exported node or a number."""
    x, y = (to.value(v) if isinstance(v, fx.Node) else to.scalar(v) for v in (a, b))
    if DType.I32 in (x.dtype, y.dtype):
        raise to.unsupported("computes with integers")
    return to(Binary(fn), x, y)


@lowers("add.Tensor", "add.Scalar")
def add(to: Lowering, a: Any, b: Any, alpha: float = 1) -> Result:
    return _weighted(to, Arithmetic.ADD, a, b, alpha)


@lowers("sub.Tensor", "sub.Scalar")
def sub(to: Lowering, a: Any, b: Any, alpha: float = 1) -> Result:
    return _weighted(to, Arithmetic.SUB, a, b, alpha)


@lowers("rsub.Scalar", "rsub.Tensor")
def rsub(to: Lowering, a: Any, b: Any, alpha: float = 1) -> Result:
    if alpha != 1:
        raise to.unsupported("scales its operand")
    return binary(to, Arithmetic.SUB, b, a)


def _weighted(to: Lowering, fn: Arithmetic, a: Any, b: Any, alpha: float) -> Value:
    if not isinstance(b, fx.Node):
        return binary(to, fn, a, b * alpha)
    if alpha == 1:
        return binary(to, fn, a, b)
    return to(Binary(fn), to.value(a), binary(to, Arithmetic.MUL, b, alpha))


@lowers("hardtanh")
def hardtanh(to: Lowering, x: fx.Node, low: float, high: float) -> Result:
    return clamp(to, x, low, high)


@lowers("clamp", "clip")
def clamp(to: Lowering, x: fx.Node, low: float | None = None, high: float | None = None) -> Result:
    if low == 0 and high == 6:
        return to(Unary(Function.RELU6), to.value(x))
    y = to.value(x)
    if low == 0:
        y = to(Unary(Function.RELU), y)
    elif low is not None and math.isfinite(low):
        y = to(Binary(Arithmetic.MAXIMUM), y, to.scalar(low))
    if high is not None and math.isfinite(high):
        y = to(Binary(Arithmetic.MINIMUM), y, to.scalar(high))
    return y


@lowers("clamp_min")
def clamp_min(to: Lowering, x: fx.Node, low: float) -> Result:
    return clamp(to, x, low, None)


@lowers("clamp_max")
def clamp_max(to: Lowering, x: fx.Node, high: float) -> Result:
    return clamp(to, x, None, high)


@lowers("leaky_relu")
def leaky_relu(to: Lowering, x: fx.Node, slope: float) -> Result:
    if not 0 <= slope <= 1:
        raise to.unsupported(f"has a slope of {slope}, outside 0 to 1")
    value = to.value(x)
    return to(Binary(Arithmetic.MAXIMUM), value, to(Binary(Arithmetic.MUL), value, to.scalar(slope)))


@lowers("gelu")
def gelu(to: Lowering, x: fx.Node, approximate: str = "none") -> Result:
    if approximate != "none":
        raise to.unsupported(f"is the {approximate} approximation", "use the exact one: nn.GELU()")
    return to(Unary(Function.GELU), to.value(x))


@lowers("pow.Tensor_Scalar")
def power(to: Lowering, x: fx.Node, exponent: float) -> Result:
    if exponent not in POWERS:
        raise to.unsupported(f"has the exponent {exponent}", f"exponents that work: {', '.join(f'{p:g}' for p in POWERS)}")
    return to(Unary(POWERS[exponent]), to.value(x))


@lowers("dropout")
def dropout(to: Lowering, x: fx.Node, p: float, train: bool) -> Result:
    if not train or p == 0:
        return to.value(x)
    if p >= 1:
        raise to.unsupported("drops everything (p = 1)")
    if to.step is None:
        to.step = to.build.input("step", (2,), DType.I32)
    to.dropouts += 1
    return to(Dropout(p, to.dropouts - 1), to.value(x), to.step)


@lowers("native_dropout")
def native_dropout(to: Lowering, x: fx.Node, p: float, train: bool | None) -> Result:
    y = dropout(to, x, p, train is not False)
    assert isinstance(y, Value)
    return (y, None)


@lowers("feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def other_dropout(to: Lowering, x: fx.Node, p: float, train: bool) -> Result:
    if train and p != 0:
        raise to.unsupported("is in training mode", "use nn.Dropout, or set this module to .eval()")
    return to.value(x)


@lowers("alias", "clone", "contiguous", "detach", "lift_fresh_copy")
def same(to: Lowering, x: fx.Node, *_: Any) -> Result:
    return to.value(x)


@lowers("to.dtype", "to.device", "to.dtype_layout", "to.other", "_to_copy", "type_as", "to.prim_dtype", "to.prim_device")
def converted(to: Lowering, x: fx.Node, *_: Any) -> Result:
    assert to.node is not None
    before, after = x.meta["val"].dtype, to.node.meta["val"].dtype
    if before != after:
        raise to.unsupported(f"converts {before} to {after}")
    return to.value(x)
