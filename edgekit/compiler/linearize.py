"""A 1×1 convolution of stride 1 without groups or padding is a matrix product over the pixels; so are its gradients."""

from __future__ import annotations

from dataclasses import replace

from edgekit.compiler.rewrite import with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from edgekit.graph.ops.linear import Linear, LinearInputGrad, LinearWeightGrad
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import Type, Value


def linearize(graph: Graph) -> Graph:
    """Replace 1×1 convolutions and their gradients by Linear, LinearInputGrad and LinearWeightGrad over weight views."""
    nodes: list[Node] = []
    views: dict[Value, Value] = {}
    for node in graph.nodes:
        if not _is_product(node):
            nodes.append(node)
        elif isinstance(node.op, Conv2dWeightGrad):
            dw, db = node.outputs
            assert dw is not None
            flat = Value(f"{dw.name}.matrix", Type(dw.shape[2:]))
            nodes.append(replace(node, op=LinearWeightGrad(), outputs=(flat, db)))
            nodes.append(Node(Reshape.to(dw.shape), (flat,), (dw,), node.origin))
        else:
            w = node.inputs[1]
            assert w is not None
            if w not in views:
                views[w] = Value(f"{w.name}.matrix", Type(w.shape[2:], w.dtype))
                nodes.append(Node(Reshape.to(w.shape[2:]), (w,), (views[w],), node.origin))
            assert isinstance(node.op, (Conv2d, Conv2dInputGrad))
            cls = Linear if isinstance(node.op, Conv2d) else LinearInputGrad
            nodes.append(replace(node, op=cls(node.op.act), inputs=(node.inputs[0], views[w], *node.inputs[2:])))
    return with_nodes(graph, nodes)


def _is_product(node: Node) -> bool:
    op = node.op
    if not isinstance(op, (Conv2d, Conv2dInputGrad, Conv2dWeightGrad)):
        return False
    kernel: tuple[int, ...] = op.kernel if isinstance(op, Conv2dWeightGrad) else node.inputs[1].shape[:2]  # type: ignore[union-attr]
    return kernel == (1, 1) and op.stride == (1, 1) and op.groups == 1 and not any(op.padding)
