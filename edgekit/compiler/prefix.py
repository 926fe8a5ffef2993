"""The frozen prefix: what a training step computes from its samples alone, the same in every epoch.

A board that keeps its results (the boundary) for each sample needs to run only the rest, the suffix, from the second epoch on.
The cut is made in a finished order, so that prefix and suffix run the very kernels of the whole step: the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgekit.compiler.by_sample import by_sample
from edgekit.compiler.dead import remove_dead
from edgekit.compiler.rewrite import roots, with_nodes
from edgekit.graph.entry import FILLED, Entry, Port, Role
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import DType, Value

#: Operations that take as long as reading a byte of the boundary: a board of 10 GFLOP/s with a card that reads 50 MB/s.
_FLOPS_PER_BYTE = 200
#: Of a step's operations: a prefix that is less is not worth a file.
_WORTH = 0.02
_STORED = frozenset({DType.F32, DType.I8})  #: what a boundary may be of


@dataclass(frozen=True)
class Split:
    """A training step as two entries: ``prefix`` makes the boundary's arrays, one row a sample, which ``suffix`` starts from."""

    prefix: Entry
    suffix: Entry


def split_prefix(step: Entry, batch: int) -> Split | None:
    """Cut a lowered ``train_step`` where that saves most; None where little or nothing is frozen at its beginning."""
    root = roots(step.graph)
    frozen = [node for node in by_sample(step, batch) if not isinstance(node.op, Reshape)]
    costs = {node: node.op.flops(node) for node in step.graph.nodes if not isinstance(node.op, Reshape)}
    left = least = sum(costs[node] for node in frozen)
    best = 0
    for count, node in enumerate(frozen, 1):
        left -= costs[node]
        boundary = _boundary(step.graph, frozen[:count], root)
        cost = left + _FLOPS_PER_BYTE * sum(v.nbytes for v in boundary)
        if cost < least and all(v.dtype in _STORED for v in boundary):
            best, least = count, cost
    saved = sum(costs[node] for node in frozen[:best])
    return _cut(step, frozen[:best], root) if best and saved >= _WORTH * sum(costs.values()) else None


def _boundary(graph: Graph, prefix: list[Node], root: Mapping[Value, Value]) -> list[Value]:
    """What ``prefix`` makes and the other nodes read, themselves or through views."""
    inside = set(prefix)
    others = (node for node in graph.nodes if node not in inside and not isinstance(node.op, Reshape))
    read = {root.get(v, v) for node in others for v in node.reads} | {root.get(v, v) for v in graph.outputs}
    return [v for node in prefix for v in node.writes if v in read]


def _cut(step: Entry, nodes: list[Node], root: Mapping[Value, Value]) -> Split:
    """Both have the views that they need."""
    inside = set(nodes)
    boundary = _boundary(step.graph, nodes, root)
    first = with_nodes(step.graph, [n for n in step.graph.nodes if n in inside or isinstance(n.op, Reshape)])
    first = remove_dead(replace(first, outputs=boundary, state={}))
    rest = remove_dead(with_nodes(step.graph, [n for n in step.graph.nodes if n not in inside]))
    made = (Port(Role.BOUNDARY, v, index=i) for i, v in enumerate(boundary))
    cached = (Port(Role.CACHED, v, index=i) for i, v in enumerate(boundary))
    return Split(
        _entry(first, [*(p for p in step.ports if p.role is Role.INPUT), *made]),
        _entry(rest, [*cached, *step.ports]),
    )


def _entry(graph: Graph, ports: list[Port]) -> Entry:
    """With those of the ports that the graph makes or reads."""
    read = {v for node in graph.nodes for v in node.reads}
    used = [p for p in ports if p.value in read or p.value in graph.outputs]
    return Entry(replace(graph, inputs=[p.value for p in used if p.role in FILLED]), tuple(used))
