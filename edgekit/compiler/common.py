"""Common subexpressions: what is computed twice from the same operands is computed once."""

from __future__ import annotations

from dataclasses import replace

from edgekit.compiler.rewrite import substitute, with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Op
from edgekit.graph.value import Value


def merge_common(graph: Graph) -> Graph:
    """Merge pure nodes of equal operator and operands; the first one gets the results that any of them asks for."""
    first: dict[tuple[Op, tuple[Value | None, ...]], int] = {}
    same: dict[Value, Value] = {}
    written: set[Value] = set()
    protected = set(graph.outputs)
    nodes: list[Node] = []
    for old in graph.nodes:
        node = substitute(old, same)
        written.update(v for i in node.op.mutates if (v := node.inputs[i]) is not None)
        pure = not node.op.mutates and not any(v in written for v in node.reads) and not protected.intersection(node.writes)
        at = first.setdefault((node.op, node.inputs), len(nodes)) if pure else len(nodes)
        if at == len(nodes):
            nodes.append(node)
            continue
        kept = nodes[at]
        outputs = tuple(a if a is not None else b for a, b in zip(kept.outputs, node.outputs, strict=True))
        same.update({b: a for a, b in zip(outputs, node.outputs, strict=True) if a is not None and b is not None and a is not b})
        nodes[at] = replace(kept, outputs=outputs)
    return with_nodes(graph, nodes)
