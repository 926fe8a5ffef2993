"""The order of execution: forward as the model has it, then backward so that little memory is in use at a time.

Backward is list scheduling: of the nodes whose operands are there, take the one that a policy likes best. A parameter's update is
ready once its gradient exists and every node that reads the old parameter has run; it frees the gradient, so it is taken at
once. Several policies are tried, and the order with the lowest liveness peak wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgekit.compiler.lifetimes import buffers, lower_bound
from edgekit.compiler.rewrite import roots
from edgekit.graph.graph import Graph, Node
from edgekit.graph.ops.views import is_view
from edgekit.graph.value import Value
from edgekit.program.format import align

_ABOUT = 1.005  #: a peak this much higher is worth the simpler order


def schedule(graph: Graph) -> Graph:
    """The nodes in the first order whose peak is about the lowest; those up to the last output's stay in place."""
    head = forward_length(graph)
    candidates = [replace(graph, nodes=_Scheduler(graph, head).run(policy)) for policy in _POLICIES]
    peaks = [liveness_peak(g) for g in candidates]
    return next(g for g, peak in zip(candidates, peaks, strict=True) if peak <= _ABOUT * min(peaks))


def liveness_peak(graph: Graph) -> int:
    """The least arena bytes that the graph's order can do with."""
    return lower_bound(buffers(graph), len(graph.nodes))


def forward_length(graph: Graph) -> int:
    """How many nodes stand up to the one that makes the last of the outputs."""
    wanted = set(graph.outputs)
    return max((i + 1 for i, node in enumerate(graph.nodes) if any(v in wanted for v in node.writes)), default=0)


@dataclass(frozen=True)
class _Choice:
    """What running a node next would do to memory, in bytes."""

    index: int
    made: int
    freed: int
    frees_after: int  #: freed by the updates that become ready by it


_Policy = Callable[[_Choice], tuple[int, ...]]
_POLICIES: tuple[_Policy, ...] = (
    lambda c: (c.index,),  # as autodiff wrote it
    lambda c: (c.made - c.freed, c.index),  # least growth
    lambda c: (c.made - c.freed - c.frees_after, c.index),  # least growth, the update that follows counted
    # first what shrinks, the smallest step first
    lambda c: (0, c.made, c.index) if c.made <= c.freed else (1, c.made - c.freed, c.index),
)


class _Scheduler:
    """One run of list scheduling."""

    def __init__(self, graph: Graph, head: int) -> None:
        self._nodes = graph.nodes
        self._head = head
        self._root = roots(graph)
        self._before = _dependencies(graph, self._root)
        self._after: list[list[int]] = [[] for _ in graph.nodes]
        for i, sources in enumerate(self._before):
            for s in sources:
                self._after[s].append(i)
        fixed = {*graph.constants, *graph.state}
        self._reads = [self._arena_reads(node, fixed) for node in graph.nodes]
        self._kept = {self._root.get(v, v) for v in graph.outputs}
        self._pending: dict[Value, set[int]] = {}  # readers of each arena value that have not run

    def run(self, policy: _Policy) -> list[Node]:
        """All nodes, the head first and as it is."""
        waiting = [len(sources) for sources in self._before]
        for i, reads in enumerate(self._reads):
            for v in reads:
                self._pending.setdefault(v, set()).add(i)
        order: list[int] = []

        def take(i: int) -> None:
            order.append(i)
            for v in self._reads[i]:
                self._pending[v].discard(i)
            for later in self._after[i]:
                waiting[later] -= 1
                if waiting[later] == 0 and later >= self._head:
                    ready.add(later)

        ready = {i for i in range(self._head, len(self._nodes)) if waiting[i] == 0}
        for i in range(self._head):
            take(i)
        while ready:
            choices = [self._choice(i, waiting) for i in ready]
            best = min(choices, key=lambda c: (c.made > 0, *policy(c))).index  # what takes no memory (updates, views) at once
            ready.discard(best)
            take(best)
        return [self._nodes[i] for i in order]

    def _arena_reads(self, node: Node, fixed: set[Value]) -> set[Value]:
        if is_view(node.op):
            return set()
        return {root for v in node.reads if (root := self._root.get(v, v)) not in fixed}

    def _choice(self, i: int, waiting: list[int]) -> _Choice:
        node = self._nodes[i]
        if is_view(node.op):
            return _Choice(i, 0, 0, 0)
        made = sum(align(v.nbytes) for v in node.writes)
        freed = sum(align(v.nbytes) for v in self._reads[i] if v not in self._kept and self._pending[v] == {i})
        own = set(node.writes)
        after = 0
        for later in self._after[i]:
            if waiting[later] == 1 and self._nodes[later].op.mutates:
                mine = self._reads[later] & own
                after += sum(align(v.nbytes) for v in mine if self._pending.get(v) == {later})
        return _Choice(i, made, freed, after)


def _dependencies(graph: Graph, root: dict[Value, Value]) -> list[set[int]]:
    """For each node, the nodes that must run before: makers of its operands; and, of each state, every earlier reader before
    a writer and the last earlier writer before a reader or writer."""
    made_at: dict[Value, int] = {}
    readers: dict[Value, set[int]] = {}
    writer: dict[Value, int] = {}
    before: list[set[int]] = []
    for i, node in enumerate(graph.nodes):
        sources = {made_at[v] for v in node.reads if v in made_at}
        written = {root.get(v, v) for k in node.op.mutates if (v := node.inputs[k]) is not None}
        for v in {root.get(v, v) for v in node.reads if root.get(v, v) in graph.state}:
            if v in writer:
                sources.add(writer[v])
            if v in written:
                sources |= readers.pop(v, set())
                writer[v] = i
            elif not is_view(node.op):
                readers.setdefault(v, set()).add(i)
        made_at.update(dict.fromkeys(node.writes, i))
        before.append(sources - {i})
    return before
