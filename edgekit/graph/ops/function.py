"""Scalar functions that ops apply elementwise, alone or as the epilogue of another op."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np

from edgekit.graph.op import Array


class Function(IntEnum):
    """An elementwise function; the numbers are those of the Program file."""

    IDENTITY = 0
    RELU = 1
    RELU6 = 2
    HARDSWISH = 3  #: x * relu6(x + 3) / 6
    HARDSIGMOID = 4  #: relu6(x + 3) / 6
    SIGMOID = 5
    SILU = 6
    TANH = 7
    GELU = 8  #: exact: x * (1 + erf(x / sqrt 2)) / 2
    EXP = 9
    LOG = 10
    SQRT = 11
    RSQRT = 12
    NEG = 13
    ABS = 14
    RECIPROCAL = 15
    SQUARE = 16

    @property
    def grad_needs_mask(self) -> bool:
        """The derivative is a 0/1 mask, so a bit an element is all that backward needs."""
        return self in (Function.RELU, Function.RELU6)

    @property
    def grad_uses_output(self) -> bool:
        """The derivative is computed from the result y; from the argument x otherwise."""
        return self in _FROM_OUTPUT


_FROM_OUTPUT = frozenset(
    {
        Function.RELU,
        Function.RELU6,
        Function.HARDSIGMOID,
        Function.SIGMOID,
        Function.TANH,
        Function.EXP,
        Function.SQRT,
        Function.RSQRT,
        Function.RECIPROCAL,
    }
)


class Arithmetic(IntEnum):
    """A binary elementwise function."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAXIMUM = 4
    MINIMUM = 5


class Reduction(IntEnum):
    """How an axis is reduced."""

    SUM = 0
    MEAN = 1
    MAX = 2


_erf = np.frompyfunc(math.erf, 1, 1)


def _gauss_cdf(x: Array) -> Array:
    return 0.5 * (1.0 + np.asarray(_erf(x * math.sqrt(0.5)), dtype=x.dtype))


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))


def apply(fn: Function, x: Array) -> Array:
    """fn(x), in x's precision."""
    y: Any
    match fn:
        case Function.IDENTITY:
            y = x.copy()
        case Function.RELU:
            y = np.maximum(x, 0.0)
        case Function.RELU6:
            y = np.clip(x, 0.0, 6.0)
        case Function.HARDSWISH:
            y = x * (np.clip(x + 3.0, 0.0, 6.0) / 6.0)
        case Function.HARDSIGMOID:
            y = np.clip(x + 3.0, 0.0, 6.0) / 6.0
        case Function.SIGMOID:
            y = _sigmoid(x)
        case Function.SILU:
            y = x * _sigmoid(x)
        case Function.TANH:
            y = np.tanh(x)
        case Function.GELU:
            y = x * _gauss_cdf(x)
        case Function.EXP:
            y = np.exp(x)
        case Function.LOG:
            y = np.log(x)
        case Function.SQRT:
            y = np.sqrt(x)
        case Function.RSQRT:
            y = 1.0 / np.sqrt(x)
        case Function.NEG:
            y = -x
        case Function.ABS:
            y = np.abs(x)
        case Function.RECIPROCAL:
            y = 1.0 / x
        case Function.SQUARE:
            y = x * x
    return np.asarray(y, dtype=x.dtype)


def derivative(fn: Function, saved: Array) -> Array:
    """fn' from what ``fn.grad_uses_output`` says: fn's result, or its argument. At a kink it is PyTorch's choice.

    A boolean ``saved`` is the mask of ``mask_of``.
    """
    if saved.dtype == np.bool_:
        return saved
    d: Any
    match fn:
        case Function.IDENTITY:
            d = np.ones_like(saved)
        case Function.RELU | Function.RELU6:
            d = mask_of(fn, saved)
        case Function.HARDSWISH:
            d = np.where(saved <= -3.0, 0.0, np.where(saved < 3.0, saved / 3.0 + 0.5, 1.0))
        case Function.HARDSIGMOID:
            d = np.where((saved > 0.0) & (saved < 1.0), 1.0 / 6.0, 0.0)
        case Function.SIGMOID:
            d = saved * (1.0 - saved)
        case Function.SILU:
            s = _sigmoid(saved)
            d = s * (1.0 + saved * (1.0 - s))
        case Function.TANH:
            d = 1.0 - saved * saved
        case Function.GELU:
            d = _gauss_cdf(saved) + saved * np.exp(-0.5 * saved * saved) / math.sqrt(2.0 * math.pi)
        case Function.EXP:
            d = saved
        case Function.LOG:
            d = 1.0 / saved
        case Function.SQRT:
            d = 0.5 / saved
        case Function.RSQRT:
            d = -0.5 * saved * saved * saved
        case Function.NEG:
            d = -np.ones_like(saved)
        case Function.ABS:
            d = np.sign(saved)
        case Function.RECIPROCAL:
            d = -saved * saved
        case Function.SQUARE:
            d = 2.0 * saved
    return np.asarray(d, dtype=saved.dtype)


def mask_of(fn: Function, y: Array) -> Array:
    """Where fn' is 1, from fn's result: 0 < y for relu, 0 < y < 6 for relu6; all of it for functions without a kink."""
    match fn:
        case Function.RELU:
            return np.asarray(y > 0.0)
        case Function.RELU6:
            return np.asarray((y > 0.0) & (y < 6.0))
        case _:
            return np.ones(y.shape, np.bool_)
