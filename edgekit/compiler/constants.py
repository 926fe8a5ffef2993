"""Constant folding: what only constants go into is computed by the compiler."""

from __future__ import annotations

import numpy as np

from edgekit.compiler.rewrite import with_nodes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Array
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import DType, Value

#: a result that is larger than its operands (Expand) is folded only up to this many bytes
_GROWTH = 4096


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes over constants by their results. Views are left: they cost nothing and share their bytes."""
    known: dict[Value, Array] = dict(graph.constants)
    protected = set(graph.outputs)
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, Reshape) or protected.intersection(node.writes) or not _foldable(node, known):
            nodes.append(node)
            continue
        results = node.op.reference(*(None if v is None else known[v] for v in node.inputs))
        known.update({v: a for v, a in zip(node.outputs, results, strict=True) if v is not None})
    return with_nodes(graph, nodes, known)


def _foldable(node: Node, known: dict[Value, Array]) -> bool:
    if node.op.mutates or not node.outputs or not all(v in known for v in node.reads):
        return False
    grown = sum(v.nbytes for v in node.writes) - sum(v.nbytes for v in node.reads)
    return grown <= _GROWTH and all(v.dtype is not DType.F32 or np.isfinite(known[v]).all() for v in node.reads)
