"""Dead code: nodes whose results nobody reads, and results that nobody asks for."""

from __future__ import annotations

from dataclasses import replace

from edgekit.graph.graph import Graph, Node
from edgekit.graph.value import Value


def remove_dead(graph: Graph) -> Graph:
    """Keep what leads to an output or changes the state; drop optional results and constants that nothing reads."""
    wanted: set[Value] = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if not node.op.mutates and not any(v in wanted for v in node.writes):
            continue
        optional = [name.endswith("?") for name in node.op.results]
        outputs = tuple(None if o and v not in wanted else v for v, o in zip(node.outputs, optional, strict=True))
        nodes.append(node if outputs == node.outputs else replace(node, outputs=outputs))
        wanted.update(node.reads)
    constants = {v: a for v, a in graph.constants.items() if v in wanted}
    return replace(graph, nodes=nodes[::-1], constants=constants)
