"""The optional operands and results around a matrix product or a convolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from edgekit.graph.op import Op
from edgekit.graph.ops.function import Function, apply
from edgekit.program import Storage
from tests.conformance.case import Case, Operand
from tests.conformance.data import Data

ACTS = tuple(Function)[:9]  #: the functions that networks activate with
MASKED = (Function.RELU, Function.RELU6)


@dataclass(frozen=True)
class Forward:
    """``act(acc + bias + residual)`` and what is kept of it."""

    act: Function = Function.IDENTITY
    bias: bool = False
    residual: bool = False
    mask: bool = False
    pre: bool = False
    inplace: bool = False
    weight: Storage = Storage.CONSTANT

    def case(self, op: Op, x: Operand, w: Operand, y_shape: tuple[int, ...], data: Data) -> Case:
        bias = data.floats(y_shape[-1:], storage=self.weight) if self.bias else None
        residual = data.floats(y_shape, 2.0) if self.residual else None
        results = (0, *((1,) if self.mask else ()), *((2,) if self.pre else ()))
        return Case(op, (x, w, bias, residual), results, (0, 3) if self.inplace and self.residual else None)


@dataclass(frozen=True)
class Backward:
    """``(acc + addend) * act'(saved)``."""

    act: Function = Function.IDENTITY
    bits: bool = False
    addend: bool = False
    inplace: bool = False
    weight: Storage = Storage.CONSTANT

    def case(self, op: Op, dy: Operand, w: Operand, dx_shape: tuple[int, ...], data: Data) -> Case:
        addend = data.floats(dx_shape) if self.addend else None
        saved = saved_for(self.act, self.bits, dx_shape, data)
        return Case(op, (dy, w, addend, saved), inplace=(0, 2) if self.inplace and self.addend else None)


def saved_for(act: Function, bits: bool, shape: tuple[int, ...], data: Data) -> Operand | None:
    """What the gradient of ``act`` reads, kinks included."""
    if act is Function.IDENTITY:
        return None
    if bits:
        return data.bits(shape)
    argument = data.array(shape, 3.0)
    argument.flat[:: max(1, argument.size // 3)] = 0.0
    if act.grad_uses_output:
        return Operand(apply(act, argument))
    return Operand(argument)


def forwards() -> Iterator[Forward]:
    """Every combination of operands, results and weights once for identity, relu6 and hardswish; the other functions once."""
    flags = (False, True)
    for act, bias, residual, weight in itertools.product(
        (Function.IDENTITY, Function.RELU6, Function.HARDSWISH), flags, flags, (Storage.CONSTANT, Storage.STATE)
    ):
        for extra in (False, True) if act is not Function.IDENTITY else (False,):
            mask, pre = extra and act in MASKED, extra and act not in MASKED
            yield Forward(act, bias, residual, mask, pre, inplace=residual and bias, weight=weight)
    for act in ACTS:
        if act is not Function.IDENTITY:
            yield Forward(act, bias=True, mask=act in MASKED, pre=act not in MASKED)


def backwards() -> Iterator[Backward]:
    """Every activation with and without an addend, from floats and from bits; constant and trained weights."""
    for act, addend in itertools.product(ACTS, (False, True)):
        for bits in (False, True) if act in MASKED else (False,):
            for weight in (Storage.CONSTANT, Storage.STATE):
                yield Backward(act, bits, addend, inplace=addend and weight is Storage.STATE, weight=weight)


_storages = st.sampled_from([Storage.CONSTANT, Storage.STATE])


@st.composite
def drawn_forward(draw: st.DrawFn) -> Forward:
    act = draw(st.sampled_from(ACTS))
    masked = act in MASKED
    flag = st.booleans()
    mask, pre = masked and draw(flag), not masked and act is not Function.IDENTITY and draw(flag)
    return Forward(act, draw(flag), draw(flag), mask, pre, draw(flag), draw(_storages))


@st.composite
def drawn_backward(draw: st.DrawFn) -> Backward:
    act = draw(st.sampled_from(ACTS))
    flag = st.booleans()
    return Backward(act, act in MASKED and draw(flag), draw(flag), draw(flag), draw(_storages))
