"""Lowering one exported graph: what the functions of the table work with.

The table maps an ATen operator's name (``aten.conv2d.default``) to a function of a ``Lowering`` and the operator's
arguments as its schema orders them, defaults filled in; tensor arguments are ``torch.fx.Node`` objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import fx

from edgekit.errors import UnsupportedError
from edgekit.frontends.torch.origins import where
from edgekit.graph.builder import Builder
from edgekit.graph.model import Layout, Parameter
from edgekit.graph.op import Array, Op
from edgekit.graph.ops.shape import Permute, Reshape
from edgekit.graph.value import DType, Type, Value

#: several results only for operators whose results are taken apart by ``getitem``
Result = Value | tuple[Value | None, ...]
Rule = Callable[..., Result]

TABLE: dict[str, Rule] = {}


def lowers(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function into the table under these operators' names."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            TABLE[f"aten.{name}" if "." in name else f"aten.{name}.default"] = rule
        return rule

    return enter


@dataclass
class Lowering:
    """The graph being built, and what each exported node became."""

    build: Builder
    tensors: dict[fx.Node, tuple[str, Array]]  #: parameters and constants: their names (tied ones share one) and contents
    trainable: frozenset[str]  #: which of those names are parameters
    values: dict[fx.Node, Result] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    stored: dict[str, tuple[Value, Layout]] = field(default_factory=dict)  #: the tensors used so far
    node: fx.Node | None = None  #: the one being lowered
    step: Value | None = None  #: the input that seeds dropouts
    dropouts: int = 0

    def __call__(self, op: Op, *operands: Value | None) -> Value:
        """Append a node."""
        return self.build(op, *operands, name=self.build.origin.module)

    def value(self, ref: fx.Node) -> Value:
        """What an exported node became; a parameter in its own layout."""
        if ref in self.tensors:
            return self.tensor(ref, tuple(range(self.tensors[ref][1].ndim)))
        found = self.values[ref]
        if isinstance(found, tuple):
            raise self.unsupported("takes a tuple of tensors")
        return found

    def shape(self, ref: fx.Node) -> tuple[int, ...]:
        """An exported node's shape in the user's layout."""
        return type_of(ref).shape

    def result_shape(self) -> tuple[int, ...]:
        """The shape of the node being lowered, in the user's layout."""
        assert self.node is not None
        return type_of(self.node).shape

    def optional(self, ref: fx.Node | None) -> Value | None:
        return None if ref is None else self.value(ref)

    def tensor(
        self, ref: fx.Node, perm: tuple[int, ...], shape: tuple[int, ...] | None = None, in_axis: int | None = None
    ) -> Value:
        """A weight with its axes stored in this order, as ``shape`` if given (which may only add axes of length 1).

        A computed one gets there by nodes, as does one that an earlier use stored otherwise.
        """
        if ref not in self.tensors:
            value = self.permute(self.value(ref), perm)
            return self.reshape(value, shape or value.shape)
        name, array = self.tensors[ref]
        plain = Layout.permuted(array.shape, perm)
        layout = replace(plain, shape=shape or plain.shape)
        if name not in self.stored:
            made = self.build.constant(name, np.array(layout.store(array), order="C"), dtype_of(array))  # a copy
            self.stored[name] = (made, layout)
            if name in self.trainable:
                self.parameters[name] = Parameter(name, made, layout, in_axis)
        value, stored = self.stored[name]
        if stored == layout:
            return value
        value = self.reshape(value, tuple(array.shape[p] for p in stored.perm))
        return self.reshape(self.permute(value, tuple(stored.perm.index(p) for p in perm)), layout.shape)

    def permute(self, x: Value, perm: tuple[int, ...]) -> Value:
        return x if perm == tuple(range(len(x.shape))) else self.build(Permute.of(*perm), x)

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        return x if shape == x.shape else self.build(Reshape.to(shape), x)

    def scalar(self, number: float) -> Value:
        """A constant of rank 0."""
        return self.build.constant(f"{number:g}", np.array(number, np.float64))

    def channels_last(self, x: Value) -> Value:
        """Axis 1 moved to the end."""
        rank = len(x.shape)
        return self.permute(x, (0, *range(2, rank), 1))

    def channels_first(self, x: Value) -> Value:
        """The inverse of ``channels_last``."""
        rank = len(x.shape)
        return self.permute(x, (0, rank - 1, *range(1, rank - 1)))

    def unsupported(self, reason: str, hint: str = "") -> UnsupportedError:
        """The error for the node being lowered: which operator, where, and what about it does not work."""
        assert self.node is not None
        target = str(self.node.target)
        return UnsupportedError(
            f"the operator {target} {reason}: {where(self.node)}",
            hint or "replace it by a supported one (docs/operators.md), or move it out of the model",
        )


def dtype_of(array: Array) -> DType:
    """F32 for floating point, I32 for integers."""
    return DType.F32 if array.dtype.kind == "f" else DType.I32


def type_of(ref: fx.Node) -> Type:
    """The type that the export gave a node."""
    fake: Any = ref.meta["val"]
    return Type(tuple(int(n) for n in fake.shape), DType.F32 if fake.dtype.is_floating_point else DType.I32)
