"""The book-keeping of a fusion pass: which node makes a value, who uses it, and where a fused node may stand."""

from __future__ import annotations

from dataclasses import replace

from edgekit.backends import Capability
from edgekit.compiler.rewrite import use_counts, with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import ShapeError
from edgekit.graph.value import Value


class Fusion:
    """A list of nodes under rewriting. ``nodes`` holds None where a node went into another."""

    def __init__(self, graph: Graph, capability: Capability) -> None:
        self.graph = graph
        self.nodes: list[Node | None] = list(graph.nodes)
        self.uses = use_counts(graph)
        self._capability = capability
        self._made_at = {v: i for i, node in enumerate(graph.nodes) for v in node.writes}

    def producer(self, value: Value | None) -> tuple[int, Node] | None:
        """Where and by which node a value is made; None for inputs, constants and states."""
        at = self._made_at.get(value) if value is not None else None
        node = self.nodes[at] if at is not None else None
        return None if at is None or node is None else (at, node)

    def merge(self, first: int, last: int, fused: Node) -> bool:
        """Put ``fused`` in the place of the nodes at ``first`` and ``last``, if the backend has a kernel for it.

        It stands as early as its operands allow. A value of the first node that other nodes read must survive as a result.
        """
        try:
            fused.op.infer(*(None if v is None else v.type for v in fused.inputs))
        except ShapeError:
            return False
        early = all(self._made_at.get(v, -1) < first for v in fused.reads)
        old = self.nodes[first]
        assert old is not None
        kept = [v for v in old.writes if v in fused.outputs and self.uses[v] > 0]
        if not self._capability.supports(fused) or (kept and not early):
            return False
        at, gone = (first, last) if early else (last, first)
        self.nodes[at], self.nodes[gone] = fused, None
        self._made_at.update(dict.fromkeys(fused.writes, at))
        return True

    def result(self) -> Graph:
        """The graph with what was merged."""
        return with_nodes(self.graph, self.nodes)


def absorb(node: Node, **changes: object) -> Node:
    """The node with other attributes."""
    return replace(node, op=replace(node.op, **changes))
