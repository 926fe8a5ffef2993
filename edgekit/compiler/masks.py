"""A mask of an activation whose result is kept until backward anyway tells nothing new: read the result in its place."""

from __future__ import annotations

from dataclasses import replace

from edgekit.backends import Capability
from edgekit.compiler.lifetimes import last_uses
from edgekit.compiler.rewrite import roots, with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import Conv2dInputGrad
from edgekit.graph.ops.elementwise import ApplyMask, Dropout, UnaryGrad
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import LinearInputGrad
from edgekit.graph.value import DType, Value


def drop_masks(graph: Graph, capability: Capability, after: int) -> Graph:
    """Replace the masks of relu and relu6 where some node at or after index ``after`` reads the activation's result."""
    lives = last_uses(graph, roots(graph))
    instead: dict[Value, tuple[Value, Function]] = {}
    for node in graph.nodes:
        fn = getattr(node.op, "act", getattr(node.op, "fn", Function.IDENTITY))
        if len(node.outputs) < 2 or isinstance(node.op, Dropout) or not isinstance(fn, Function) or not fn.grad_needs_mask:
            continue
        y, mask = node.outputs[:2]
        if y is not None and mask is not None and mask.dtype is DType.BITS and lives.get(y, -1) >= after:
            instead[mask] = (y, fn)
    replaced = {mask: [_with_result(node, mask, *instead[mask]) for node in graph.consumers().get(mask, ())] for mask in instead}
    good = {m for m, nodes in replaced.items() if all(n is not None and capability.supports(n) for n in nodes)}
    return with_nodes(graph, [_rewrite(node, {m: instead[m] for m in good}) for node in graph.nodes])


def _rewrite(node: Node, instead: dict[Value, tuple[Value, Function]]) -> Node:
    for v in node.reads:
        if v in instead:
            return _with_result(node, v, *instead[v]) or node
    return node


def _with_result(node: Node, mask: Value, y: Value, fn: Function) -> Node | None:
    """The node with the derivative from ``y``; None where it reads the mask in another way."""
    if isinstance(node.op, ApplyMask) and node.op.scale == 1.0:
        return replace(node, op=UnaryGrad(fn), inputs=(node.inputs[0], y))
    if isinstance(node.op, (Conv2dInputGrad, LinearInputGrad)) and node.inputs[3] is mask:
        return replace(node, op=replace(node.op, act=fn), inputs=(*node.inputs[:3], y, node.inputs[4]))
    return None
