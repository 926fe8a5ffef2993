"""A per-channel affine after a product is the product with scaled weights.

scale * (x @ W + b) + shift = x @ (W * scale) + (b * scale + shift). The right side multiplies arrays of the parameters' size
where the left one multiplies activations; differentiated, it gives the gradients of W and scale from the one weight gradient
of W * scale, and nothing but the product's input is saved. So a BatchNorm whose scale is trained costs little more than a folded
one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import replace

from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import Conv2d
from edgekit.graph.ops.elementwise import Affine, Binary
from edgekit.graph.ops.function import Arithmetic, Function
from edgekit.graph.ops.linear import Linear
from edgekit.graph.value import Value


def absorb_affines(graph: Graph, keep: Set[Value]) -> Graph:
    """Replace every ``affine`` of a product that nothing else reads by the product with scaled weights.

    Weights in ``keep`` are left alone: those of which a part is trained, whose gradient is computed for that part only.
    """
    uses = Counter(v for node in graph.nodes for v in node.reads)
    uses.update(graph.outputs)
    made = graph.producers()
    gone: set[Node] = set()
    build = Builder(Graph())
    nodes: list[Node] = []
    for node in graph.nodes:
        x = node.inputs[0] if isinstance(node.op, Affine) and node.op.act is Function.IDENTITY else None
        product = made.get(x) if x is not None else None
        if product is None or x is None or uses[x] != 1 or not _absorbs(product, keep):
            nodes.append(node)
            continue
        build.origin = node.origin
        nodes += _scaled(build, product, node)
        gone.add(product)
    return replace(graph, nodes=[n for n in nodes if n not in gone])


def _absorbs(product: Node, keep: Set[Value]) -> bool:
    op = product.op
    if not isinstance(op, (Conv2d, Linear)) or op.act is not Function.IDENTITY:
        return False
    return product.inputs[3] is None and product.inputs[1] not in keep


def _scaled(build: Builder, product: Node, affine: Node) -> list[Node]:
    """The nodes that compute the affine's result from the product's operands."""
    x, w, bias, _ = product.inputs
    _, scale, shift = affine.inputs
    assert w is not None
    assert scale is not None
    start = len(build.graph.nodes)
    weight = build(Binary(Arithmetic.MUL), w, scale, name=f"{w.name}.scaled")
    if bias is not None:
        scaled = build(Binary(Arithmetic.MUL), bias, scale, name=f"{bias.name}.scaled")
        shift = build(Binary(Arithmetic.ADD), scaled, shift, name=f"{bias.name}.shifted")
    return [*build.graph.nodes[start:], Node(product.op, (x, weight, shift, None), affine.outputs, product.origin)]
