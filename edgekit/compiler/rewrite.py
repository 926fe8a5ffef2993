"""What the passes share: copies of a graph with other nodes, and who uses what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Array, Op
from edgekit.graph.ops.views import is_view
from edgekit.graph.value import Value


def with_nodes(graph: Graph, nodes: Iterable[Node | None], constants: Mapping[Value, Array] | None = None) -> Graph:
    """The graph with these nodes (None left out) and more constants."""
    kept = [n for n in nodes if n is not None]
    return replace(graph, nodes=kept, constants={**graph.constants, **(constants or {})})


def substitute(node: Node, same: Mapping[Value, Value]) -> Node:
    """The node reading ``same[v]`` in place of ``v``."""
    if not any(v in same for v in node.reads):
        return node
    return replace(node, inputs=tuple(None if v is None else same.get(v, v) for v in node.inputs))


def use_counts(graph: Graph) -> Counter[Value]:
    """How often each value is read, an output of the graph once more."""
    counts = Counter(v for node in graph.nodes for v in node.reads)
    counts.update(graph.outputs)
    return counts


def roots(graph: Graph) -> dict[Value, Value]:
    """For every view, the value whose memory it is."""
    found: dict[Value, Value] = {}
    for node in graph.nodes:
        if is_view(node.op):
            (x,), (y,) = node.inputs, node.outputs
            assert x is not None and y is not None
            found[y] = found.get(x, x)
    return found


def is_update(op: Op) -> bool:
    """Whether the op belongs to the optimizer's step."""
    return op.name in ("sgd_update", "accumulate", "fill", "sum_squares", "clip_coefficient")
