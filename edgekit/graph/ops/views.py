"""Views: ops that no kernel runs, whose result lies in the memory of their operand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekit.graph.graph import Node
from edgekit.graph.op import Array, Op
from edgekit.graph.ops.linear import check
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import Type


@dataclass(frozen=True)
class Rows(Op):
    """``length`` entries of the first axis from ``start`` on, of what nobody writes to while they are read.

    Only the compiler makes any.
    """

    start: int = 0
    length: int = 1

    name: ClassVar[str] = "rows"
    code: ClassVar[int] = 0
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(self.start >= 0 and 1 <= self.length <= x.shape[0] - self.start, f"rows: {x}, {self}")
        return (Type((self.length, *x.shape[1:]), x.dtype),)

    def flops(self, node: Node) -> int:
        return 0

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        return (x[self.start : self.start + self.length],)


def is_view(op: Op) -> bool:
    return isinstance(op, (Reshape, Rows))


def view_offset(node: Node) -> int:
    """Bytes from the start of a view's operand to the view."""
    (x,) = node.inputs
    assert x is not None
    return node.op.start * (x.nbytes // x.shape[0]) if isinstance(node.op, Rows) else 0
