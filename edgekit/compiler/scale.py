"""The gradient of a per-channel scale, sum over rows of dy * x, is the weight gradient of a 1×1 depthwise convolution: one
pass over memory, no product array; and the shift's gradient is its bias gradient."""

from __future__ import annotations

from edgekit.backends import Capability
from edgekit.compiler.backward import is_row_sum
from edgekit.compiler.rewrite import use_counts, with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import Conv2dWeightGrad
from edgekit.graph.ops.elementwise import Binary
from edgekit.graph.ops.function import Arithmetic
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import Type, Value


def fuse_scale_gradients(graph: Graph, capability: Capability) -> Graph:
    """Replace ``reduce(sum over rows, mul(dy, x))`` of arrays of one shape by a depthwise weight gradient.

    The gradient is the product's operand that a sum over rows reads too, so that the bias gradient may join later; the first
    operand where there is no such sum.
    """
    uses = use_counts(graph)
    made = graph.producers()
    summed = {node.inputs[0] for node in graph.nodes if is_row_sum(node)}
    instead: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        product = made.get(node.inputs[0]) if is_row_sum(node) and node.inputs[0] is not None else None
        if product is None or not isinstance(product.op, Binary) or product.op.fn is not Arithmetic.MUL:
            continue
        a, b = product.inputs
        result, total = product.outputs[0], node.outputs[0]
        if a is None or b is None or result is None or total is None or a.type != b.type or uses[result] != 1:
            continue
        dy, x = (b, a) if b in summed else (a, b)
        new = _depthwise(x, dy, total, node)
        if all(isinstance(n.op, Reshape) or capability.supports(n) for n in new):
            instead[product] = []
            instead[node] = new
    return with_nodes(graph, [n for node in graph.nodes for n in instead.get(node, [node])])


def _depthwise(x: Value, dy: Value, total: Value, node: Node) -> list[Node]:
    """Views of x and dy with four axes, the weight gradient [1, 1, 1, C], and its view [C]."""
    channels = x.shape[-1]
    nodes = []
    images = []
    for v in (x, dy):
        if len(v.shape) != 4:
            image = Value(f"{v.name}.rows", Type((1, 1, v.type.size // channels, channels)))
            nodes.append(Node(Reshape.to(image.shape), (v,), (image,), node.origin))
            v = image
        images.append(v)
    dw = Value(f"{total.name}.depthwise", Type((1, 1, 1, channels)))
    nodes.append(Node(Conv2dWeightGrad(groups=channels), (*images, None), (dw, None), node.origin))
    nodes.append(Node(Reshape.to(total.shape), (dw,), (total,), node.origin))
    return nodes
