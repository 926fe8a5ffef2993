"""Which nodes of a graph compute each sample's rows from that sample's rows alone, the same whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.compiler.rewrite import roots
from edgekit.graph.entry import Entry, Role
from edgekit.graph.graph import Node
from edgekit.graph.op import Op
from edgekit.graph.ops.conv import Conv2d
from edgekit.graph.ops.elementwise import Affine, Binary, Reduce, Unary
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.loss import Softmax
from edgekit.graph.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from edgekit.graph.ops.quantized import Dequantize, QAdd, QConv2d, QMean, Quantize
from edgekit.graph.ops.shape import Concat, Permute, Reshape, Slice
from edgekit.graph.value import Value

#: Ops whose result's row i depends on the operands' rows i, where all of these have as many axes.
_ROWWISE: frozenset[type[Op]] = frozenset(
    {Affine, AdaptiveAvgPool2d, AvgPool2d, Binary, Conv2d, Dequantize, Linear, MaxPool2d, QAdd, QConv2d, QMean, Quantize, Unary}
)
_WEIGHTS = ("w", "rest")  #: operands whose first axis is no batch


def by_sample(entry: Entry, batch: int) -> Iterator[Node]:
    """The nodes, in order, that are computed from samples, and from what does not change while the entry runs."""
    root = roots(entry.graph)
    fixed = {*entry.graph.constants}
    if not any(node.op.mutates for node in entry.graph.nodes):
        fixed |= {*entry.graph.state}
    known = {p.value for p in entry.ports if p.role is Role.INPUT and p.value.shape[0] == batch}
    for node in entry.graph.nodes:
        varying = [v for v in node.reads if root.get(v, v) not in fixed]
        if not node.op.mutates and varying and known.issuperset(varying) and _keeps_samples_apart(node, varying, batch):
            known.update(node.writes)
            yield node


def _keeps_samples_apart(node: Node, varying: list[Value], batch: int) -> bool:
    """Whether the first axis goes through the samples in order, some rows each, before and after the node."""
    values = [*varying, *node.writes]
    if any(not v.shape or v.shape[0] % batch for v in values) or _has_rows(node, varying):
        return False
    alike = len({len(v.shape) for v in values}) == 1
    match node.op:
        case Reshape() | Softmax():
            return True
        case Slice(axis=axis) | Concat(axis=axis):
            return axis != 0
        case Permute(perm=perm):
            return perm[0] == 0
        case Reduce(axes=axes):
            return not axes & 1
        case op:
            return alike and type(op) in _ROWWISE


def _has_rows(node: Node, varying: list[Value]) -> bool:
    """Whether what does not change, weights aside, is another one for each row, and so for each place in the batch."""
    axes = len(varying[0].shape)
    named = zip(node.op.operands, node.inputs, strict=False)
    fixed = (v for name, v in named if v is not None and v not in varying and name.rstrip("?") not in _WEIGHTS)
    return any(len(v.shape) == axes and v.shape[0] != 1 for v in fixed)
