"""Forward fusion: bias, residual and activation become the epilogue of the product before them."""

from __future__ import annotations

from dataclasses import replace

from edgekit.backends import Capability
from edgekit.compiler.fusion import Fusion, absorb
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.conv import Conv2d
from edgekit.graph.ops.elementwise import Affine, Binary, Unary
from edgekit.graph.ops.function import Arithmetic, Function
from edgekit.graph.ops.linear import Linear


def fuse_epilogues(graph: Graph, capability: Capability) -> Graph:
    """Fuse ``add`` of a vector (bias) or of a like array (residual) and activations into Conv2d, Linear and Affine.

    A mask that backward reads becomes the fused node's ``mask`` result, the activation's argument its ``pre`` result.
    """
    fusion = Fusion(graph, capability)
    for i, node in enumerate(graph.nodes):
        if isinstance(node.op, Binary) and node.op.fn is Arithmetic.ADD:
            _fuse_add(fusion, i, node)
        elif isinstance(node.op, Unary) and node.op.fn is not Function.IDENTITY:
            _fuse_activation(fusion, i, node)
    return fusion.result()


def _fuse_add(fusion: Fusion, i: int, node: Node) -> None:
    """conv(x) + b: into the operand that is made last, else into the other."""
    a, b = node.inputs
    sides = [(fusion.producer(mine), mine, other) for mine, other in ((a, b), (b, a))]
    for made, mine, other in sorted(sides, key=lambda s: -s[0][0] if s[0] else 1):
        if made is None or mine is None or other is None or mine is other or fusion.uses[mine] != 1:
            continue
        at, product = made
        if not isinstance(product.op, (Conv2d, Linear)) or product.op.act is not Function.IDENTITY:
            continue
        x, w, bias, residual = product.inputs
        if other.shape == mine.shape and residual is None:
            fused = replace(product, inputs=(x, w, bias, other), outputs=(node.outputs[0], None, None))
        elif other.shape == mine.shape[-1:] and bias is None:
            fused = replace(product, inputs=(x, w, other, residual), outputs=(node.outputs[0], None, None))
        else:
            continue
        if fusion.merge(at, i, fused):
            return


def _fuse_activation(fusion: Fusion, i: int, node: Node) -> None:
    x = node.inputs[0]
    made = fusion.producer(x)
    if made is None or x is None:
        return
    at, product = made
    if not isinstance(product.op, (Conv2d, Linear, Affine)) or product.op.act is not Function.IDENTITY:
        return
    assert isinstance(node.op, Unary)
    pre = x if fusion.uses[x] > 1 else None
    fusion.merge(at, i, replace(absorb(product, act=node.op.fn), outputs=(*node.outputs, pre)))
