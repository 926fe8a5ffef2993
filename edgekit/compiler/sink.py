"""A slice is taken in the forward pass so that the whole can die there. Where the whole lives on, the slice can wait."""

from __future__ import annotations

from edgekit.compiler.rewrite import roots, with_nodes
from edgekit.compiler.schedule import forward_length
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.shape import Slice
from edgekit.graph.value import Value


def sink_slices(graph: Graph) -> Graph:
    """Move forward slices that only backward reads, of arrays that backward reads too, to just before their first reader."""
    root = roots(graph)
    head = forward_length(graph)
    waiting: dict[Value, Node] = {}
    for i, node in enumerate(graph.nodes[:head]):
        x, y = (node.inputs[0], node.outputs[0]) if isinstance(node.op, Slice) else (None, None)
        if x is None or y is None:
            continue
        whole = root.get(x, x)
        others = [j for j, n in enumerate(graph.nodes) if j != i and any(root.get(v, v) is whole for v in n.reads)]
        mine = [j for j, n in enumerate(graph.nodes) if y in n.inputs]
        if others and mine and max(others) >= head and min(mine) >= head:
            waiting[y] = node
    moved = set(waiting.values())
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += [waiting.pop(v) for v in list(dict.fromkeys(node.reads)) if v in waiting]
        if node not in moved:
            nodes.append(node)
    return with_nodes(graph, nodes)
