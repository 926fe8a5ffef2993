"""A weight gradient that only its SGD step reads becomes one op with it: the sums of the product go from the cache into the
parameter, and no gradient is written to memory and read again."""

from __future__ import annotations

from edgekit.backends import Capability
from edgekit.compiler.rewrite import use_counts, with_nodes
from edgekit.compiler.schedule import liveness_peak
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import ShapeError
from edgekit.graph.ops.linear import LinearWeightGrad
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.ops.update import LinearSgd, SgdUpdate
from edgekit.graph.value import Value


def fuse_updates(graph: Graph, capability: Capability) -> Graph:
    """The graph, in its order, with every such pair fused that does not raise the peak of memory.

    The step waits for all that read the old parameter, and so does the product then, whose operands live longer for it.
    """
    peak = liveness_peak(graph)
    for update in [node for node in graph.nodes if isinstance(node.op, SgdUpdate)]:
        fused = _fused(graph, update, capability)
        if fused is not None and (higher := liveness_peak(fused)) <= peak:
            graph, peak = fused, higher
    return graph


def _fused(graph: Graph, update: Node, capability: Capability) -> Graph | None:
    """The graph with this update and its product as one; None where they cannot be."""
    chain = _product(graph, update)
    if chain is None:
        return None
    product, views = chain
    node = _node(product, update)
    if node is None or not capability.supports(node):
        return None
    at = graph.nodes.index(update)
    bias = [n for n in graph.nodes[:at] if node.outputs[0] is not None and node.outputs[0] in n.reads]
    if not all(isinstance(n.op, SgdUpdate) for n in bias):
        return None
    gone = {product, update, *views, *bias}
    before, after = ([n for n in nodes if n not in gone] for nodes in (graph.nodes[:at], graph.nodes[at:]))
    return with_nodes(graph, [*before, node, *bias, *after])


def _product(graph: Graph, update: Node) -> tuple[Node, list[Node]] | None:
    """The linear layer's weight gradient that the update alone reads, and the views between."""
    made, uses = graph.producers(), use_counts(graph)
    value: Value | None = update.inputs[1]
    views: list[Node] = []
    while value is not None and uses[value] == 1 and value in made:
        node = made[value]
        if isinstance(node.op, LinearWeightGrad):
            return node, views
        if not isinstance(node.op, Reshape):
            return None
        views.append(node)
        value = node.inputs[0]
    return None


def _node(product: Node, update: Node) -> Node | None:
    """Both as one op; None where the step is of integers, clipped by a norm, or has whole arrays of factors."""
    x, dy, quant = product.inputs
    param, grad, velocity, factor, offset, *others = update.inputs
    step, dw = update.op, product.outputs[0]
    assert isinstance(step, SgdUpdate) and grad is not None and dw is not None
    if quant is not None or any(v is not None for v in others) or step.start or grad.shape[-2:] != dw.shape:
        return None
    op = LinearSgd(step.lr, step.momentum, step.weight_decay, step.nesterov)
    inputs = (x, dy, param, velocity, factor, offset)
    try:
        op.infer(*(None if v is None else v.type for v in inputs))
    except ShapeError:
        return None
    return Node(op, inputs, (product.outputs[1],), product.origin)
