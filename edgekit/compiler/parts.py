"""The float32 gradient of an int8 weight takes four times the weight's memory: it is made, used and dropped block by block.

The blocks are those of one product, so their numbers are those of the whole; so are the random numbers of the update.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgekit.compiler.rewrite import use_counts, with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.linear import LinearWeightGrad
from edgekit.graph.ops.shape import Reshape, Slice
from edgekit.graph.ops.update import SgdUpdate
from edgekit.graph.value import DType, Type, Value

_MOST = 16 * 1024  #: bytes of a block


def split_weight_gradients(graph: Graph) -> Graph:
    """Replace weight gradients that only an update without velocity reads by blocks of at most 16 KiB, each with its update."""
    uses, made = use_counts(graph), graph.producers()
    instead: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        chain = _chain(node, made)
        if chain is not None and all(uses[v] == 1 for n in chain for v in n.writes if v is n.outputs[0]):
            instead.update({n: [] for n in chain[1:]})
            instead[chain[0]], instead[node] = _blocks(chain[0], node)
    return with_nodes(graph, [n for node in graph.nodes for n in instead.get(node, [node])])


def _chain(update: Node, made: dict[Value, Node]) -> list[Node] | None:
    """The weight gradient that an int8 update reads, and the views between; None where it is no such update, or a small one."""
    if not isinstance(update.op, SgdUpdate):
        return None
    param, grad, velocity, factor, offset, *_ = update.inputs
    whole = any(v is not None and len(v.shape) != 1 for v in (factor, offset))
    if param is None or grad is None or param.dtype is not DType.I8 or velocity is not None or whole or grad.nbytes <= _MOST:
        return None
    node, views = made.get(grad), list[Node]()
    while node is not None and isinstance(node.op, Reshape):
        views.append(node)
        node = made.get(node.inputs[0]) if node.inputs[0] is not None else None
    return [node, *views] if node is not None and isinstance(node.op, LinearWeightGrad) else None


def _blocks(product: Node, update: Node) -> tuple[list[Node], list[Node]]:
    """What takes the gradient's place (the bias's, if it has one), and the update's: the blocks."""
    x, dy, quant = product.inputs
    param, grad, *rest = update.inputs
    assert x is not None and dy is not None and grad is not None
    inputs, outputs = x.shape[-1], dy.shape[-1]
    rows = max(1, _MOST // (4 * outputs))
    rows = math.ceil(inputs / math.ceil(inputs / rows))
    blocks: list[Node] = []
    for start in range(0, inputs, rows):
        count = min(rows, inputs - start)
        cut = Slice(len(x.shape) - 1, start, count)
        part = Value(f"{x.name}.from{start}", cut.infer(x.type)[0])
        dw = Value(f"{grad.name}.from{start}", Type((count, outputs)))
        view = Value(f"{dw.name}.view", Type((*grad.shape[:-2], count, outputs)))
        blocks.append(Node(cut, (x,), (part,), product.origin))
        blocks.append(Node(product.op, (part, dy, quant), (dw, product.outputs[1] if start == 0 else None), product.origin))
        blocks.append(Node(Reshape.to(view.shape), (dw,), (view,), product.origin))
        assert isinstance(update.op, SgdUpdate)
        blocks.append(replace(update, op=replace(update.op, start=start), inputs=(param, view, *rest)))
    return ([], blocks) if product.outputs[1] is None else (blocks, [])
