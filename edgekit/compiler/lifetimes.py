"""When each piece of arena memory is in use, with views and in-place results sharing one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.compiler.rewrite import roots
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.views import is_view
from edgekit.graph.value import Value
from edgekit.program.format import align


@dataclass(frozen=True)
class Buffer:
    """Memory that one value, or a chain of values each made in place of the one before, takes.

    Attributes:
        nbytes: aligned.
        start: index of the node that first writes it; -1 for an input of the graph.
        end: index of the last node that uses it; the number of nodes for an output of the graph.
    """

    values: tuple[Value, ...]
    nbytes: int
    start: int
    end: int


def buffers(graph: Graph) -> list[Buffer]:
    """The arena memory of a graph in its order of execution."""
    root = roots(graph)
    births = dict.fromkeys(graph.inputs, -1)
    births.update({v: i for i, node in enumerate(graph.nodes) if not is_view(node.op) for v in node.writes})
    deaths = last_uses(graph, root)
    chain: dict[Value, list[Value]] = {v: [v] for v in births}
    for i, node in enumerate(graph.nodes):
        for result, operand in in_place(node, root):
            known = chain.get(operand)
            if known is not None and deaths[operand] == i and births[operand] < i:
                known.append(result)
                chain[result] = known
                break
    made = {id(c): c for c in chain.values()}.values()
    return [Buffer(tuple(c), align(c[0].nbytes), births[c[0]], max(deaths.get(v, births[v]) for v in c)) for c in made]


def last_uses(graph: Graph, root: dict[Value, Value]) -> dict[Value, int]:
    """For each value that is read, directly or through a view, the index of the last reader; outputs live to the end."""
    found: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        if not is_view(node.op):
            for v in node.reads:
                found[root.get(v, v)] = i
    for v in graph.outputs:
        found[root.get(v, v)] = len(graph.nodes)
    return found


def in_place(node: Node, root: dict[Value, Value]) -> list[tuple[Value, Value]]:
    """(result, operand's root) pairs that this node could share memory between, the operand dying here."""
    reads = [root.get(v, v) for v in node.reads]
    pairs = []
    for r, o in node.op.shared():
        result, operand = node.outputs[r], node.inputs[o]
        if result is None or operand is None or result.type != operand.type:
            continue
        owner = root.get(operand, operand)
        if reads.count(owner) == 1 and owner.nbytes == operand.nbytes:
            pairs.append((result, owner))
    return pairs


def live_bytes(pieces: Sequence[Buffer], nodes: int) -> list[int]:
    """Bytes in use while each node runs (index i), and after the last (index ``nodes``)."""
    change = [0] * (nodes + 3)
    for b in pieces:
        change[b.start + 1] += b.nbytes
        change[b.end + 2] -= b.nbytes
    total, profile = 0, []
    for c in change[: nodes + 2]:
        total += c
        profile.append(total)
    return profile[1:]


def lower_bound(pieces: Sequence[Buffer], nodes: int) -> int:
    """The least arena that this order can do with: the most bytes in use at one time."""
    return max(live_bytes(pieces, nodes), default=0)
