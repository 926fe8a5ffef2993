"""What forward made cheaply is computed again for backward rather than kept all the while (Chen et al. 2016, "Training deep
nets with sublinear memory cost", with single nodes in place of segments).

A copy is the same node over the same operands, so it gives the same bits. It stands just before the first node of backward that
reads a result of it, and all its results are made again, masks too, so that backward reads what it read before.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from edgekit.compiler.dead import remove_dead
from edgekit.compiler.lifetimes import last_uses
from edgekit.compiler.rewrite import roots, substitute, with_nodes
from edgekit.compiler.schedule import forward_length, liveness_peak
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.elementwise import Binary, Unary
from edgekit.graph.ops.views import is_view
from edgekit.graph.value import Value

_SMALL = 4096  #: bytes; a smaller value that is made from parameters is kept
BUDGET = 0.05  #: of the entry's FLOPs and of its work, at most, are spent on activations once more
_DEAREST = 32.0  #: work a byte that an activation may cost, unless more than the usual budget is to be spent
_BALANCE = 10.0  #: FLOPs that take as long as moving a byte: about 70 GFLOP/s and 7 GB/s on one AVX-512 core
_LEAST = 0.01  #: of the peak; a node whose results take less is left alone


def recompute_parameters(graph: Graph) -> Graph:
    """Give backward its own copy of every large value that forward computes elementwise from states and constants.

    The copy stands before its first reader, so before any update of those states.
    """
    head = forward_length(graph)
    root = roots(graph)
    fixed = {*graph.constants, *graph.state}
    known = set(fixed)  # and what is computed from them
    again: list[Node] = []
    for node in graph.nodes[:head]:
        if not all(v in known for v in node.reads):
            continue
        known.update(node.writes)
        y = node.outputs[0]
        kept = sum(v.nbytes for v in node.reads if root.get(v, v) not in fixed)
        if isinstance(node.op, (Binary, Unary)) and y is not None and y.nbytes > max(_SMALL, 4 * kept):
            again.append(node)
    return _with_copies(graph, again) or graph


def recompute_activations(graph: Graph, budget: float = BUDGET) -> Graph:
    """Compute activations again for backward while the liveness peak of this order drops and the cost stays in the budget.

    Greedy: the least work a byte first; a node is taken if the peak drops by at least half of what its results take.

    Args:
        budget: extra FLOPs, as a fraction of those of the graph; and extra work likewise.
    """
    best, peak = graph, liveness_peak(graph)
    costs = [_cost(node) for node in graph.nodes if not is_view(node.op)]
    flops, work = (budget * sum(c) for c in zip(*costs, strict=True)) if costs else (0.0, 0.0)
    chosen: list[Node] = []
    dearest = _DEAREST if budget <= BUDGET else math.inf
    for node, nbytes in _candidates(graph, _LEAST * peak, dearest):
        f, w = _cost(node)
        made = _with_copies(graph, [*chosen, node]) if f <= flops and w <= work else None
        if made is None or (lower := liveness_peak(made)) > peak - nbytes / 2:
            continue
        best, peak, flops, work = made, lower, flops - f, work - w
        chosen.append(node)
    return best


def _cost(node: Node) -> tuple[float, float]:
    """FLOPs, and work: the time of what binds the node, arithmetic or memory, in FLOPs (a depthwise convolution: memory)."""
    flops = node.op.flops(node)
    return flops, max(flops, _BALANCE * sum(v.nbytes for v in (*node.reads, *node.writes)))


def _candidates(graph: Graph, least: float, dearest: float) -> list[tuple[Node, int]]:
    """Forward's nodes and the bytes that backward reads of their results, the least work a byte first."""
    head = forward_length(graph)
    lives = last_uses(graph, roots(graph))
    outputs = set(graph.outputs)
    found: list[tuple[float, Node, int]] = []
    for node in graph.nodes[:head]:
        if is_view(node.op) or node.op.mutates or outputs.intersection(node.writes):
            continue
        nbytes = sum(v.nbytes for v in node.writes if lives.get(v, -1) >= head)
        if nbytes > least and _cost(node)[1] <= dearest * nbytes:
            found.append((_cost(node)[1] / nbytes, node, nbytes))
    return [(node, nbytes) for _, node, nbytes in sorted(found, key=lambda c: (c[0], -c[2]))]


def _with_copies(graph: Graph, chosen: Collection[Node]) -> Graph | None:
    """Backward reads copies of the results of these nodes; None if a copy would come after an update of what it reads."""
    head, root = forward_length(graph), roots(graph)
    results = {v for node in chosen for v in node.writes}
    views = [node for node in graph.nodes[:head] if is_view(node.op)]
    again = {v: node for node in (*chosen, *views) for v in node.writes if root.get(v, v) in results}
    copies: dict[Value, Value] = {}
    updated: set[Value] = set()
    nodes = graph.nodes[:head]

    def copy(v: Value) -> bool:
        """Emit the node that makes ``v`` once more, after those of its operands that are copied too."""
        if v not in again or v in copies:
            return True
        node = again[v]
        if any(root.get(x, x) in updated for x in node.reads) or not all(copy(x) for x in node.reads):
            return False
        copies.update({y: Value(f"{y.name}.again", y.type) for y in node.writes})
        outputs = tuple(None if y is None else copies[y] for y in node.outputs)
        nodes.append(replace(substitute(node, copies), outputs=outputs, recomputed=True))
        return True

    for node in graph.nodes[head:]:
        if not all(copy(v) for v in node.reads):
            return None
        nodes.append(substitute(node, copies))
        updated.update(root.get(v, v) for i in node.op.mutates if (v := node.inputs[i]) is not None)
    return remove_dead(with_nodes(graph, nodes))
