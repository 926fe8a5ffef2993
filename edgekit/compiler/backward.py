"""Backward fusion: a sum of gradients and the derivative of an activation become the epilogue of an input gradient, and a bias's
gradient a second result of the weight's."""

from __future__ import annotations

from dataclasses import replace

from edgekit.backends import Capability
from edgekit.compiler.fusion import Fusion, absorb
from edgekit.compiler.rewrite import with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import Conv2dInputGrad, Conv2dWeightGrad
from edgekit.graph.ops.elementwise import ApplyMask, Binary, Reduce, UnaryGrad
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.linear import LinearInputGrad, LinearWeightGrad
from edgekit.graph.value import Value

_INPUT_GRADS = (Conv2dInputGrad, LinearInputGrad)


def fuse_backward(graph: Graph, capability: Capability) -> Graph:
    """Fuse ``add``, ``apply_mask`` and ``unary_grad`` into the input gradient before them."""
    fusion = Fusion(graph, capability)
    for i, node in enumerate(graph.nodes):
        if isinstance(node.op, Binary) and node.op.fn is Arithmetic.ADD:
            _fuse_addend(fusion, i, node)
        elif isinstance(node.op, UnaryGrad) or (isinstance(node.op, ApplyMask) and node.op.scale == 1.0):
            _fuse_derivative(fusion, i, node)
    return fusion.result()


def _input_grad(fusion: Fusion, value: Value | None) -> tuple[int, Node] | None:
    """The input gradient that makes ``value`` for one reader only and has no activation yet."""
    made = fusion.producer(value)
    if made is None or value is None or fusion.uses[value] != 1:
        return None
    op = made[1].op
    return made if isinstance(op, _INPUT_GRADS) and op.act is Function.IDENTITY else None


def _fuse_addend(fusion: Fusion, i: int, node: Node) -> None:
    a, b = node.inputs
    sides = [(_input_grad(fusion, mine), mine, other) for mine, other in ((a, b), (b, a))]
    for made, mine, other in sorted(sides, key=lambda s: -s[0][0] if s[0] else 1):
        if made is None or mine is None or other is None or mine is other or other.type != mine.type:
            continue
        at, product = made
        dy, w, addend, *rest = product.inputs
        if addend is None and fusion.merge(at, i, replace(product, inputs=(dy, w, other, *rest), outputs=node.outputs)):
            return


def _fuse_derivative(fusion: Fusion, i: int, node: Node) -> None:
    dy, saved = node.inputs
    made = _input_grad(fusion, dy)
    if made is None:
        return
    at, product = made
    fn = node.op.fn if isinstance(node.op, UnaryGrad) else Function.RELU  # a mask is applied alike for relu and relu6
    fused = replace(absorb(product, act=fn), inputs=(*product.inputs[:3], saved, product.inputs[4]), outputs=node.outputs)
    fusion.merge(at, i, fused)


def fuse_bias_gradients(graph: Graph, capability: Capability) -> Graph:
    """Make the sum of dy's rows the second result of a weight gradient over the same dy."""
    nodes: list[Node | None] = list(graph.nodes)
    weight_grads = {
        node.inputs[1]: i
        for i, node in enumerate(graph.nodes)
        if isinstance(node.op, (Conv2dWeightGrad, LinearWeightGrad)) and node.outputs[1] is None
    }
    first_read: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for v in node.reads:
            first_read.setdefault(v, i)
    for i, node in enumerate(graph.nodes):
        at = weight_grads.get(node.inputs[0]) if is_row_sum(node) else None
        db = node.outputs[0] if node.outputs else None
        if at is None or db is None or len(db.shape) != 1 or first_read.get(db, at) < at:
            continue
        product = nodes[at]
        assert product is not None
        fused = replace(product, outputs=(product.outputs[0], db))
        if capability.supports(fused):
            nodes[at], nodes[i] = fused, None
            del weight_grads[node.inputs[0]]
    return with_nodes(graph, nodes)


def is_row_sum(node: Node) -> bool:
    """Whether the node sums over all axes but the last (those of length 1 aside): the gradient of a vector."""
    op, x = node.op, node.inputs[0] if node.inputs else None
    if not isinstance(op, Reduce) or x is None:
        return False
    rows = range(len(x.shape) - 1)
    return op.fn is Reduction.SUM and not op.axes >> len(rows) and all(op.axes >> i & 1 or x.shape[i] == 1 for i in rows)
