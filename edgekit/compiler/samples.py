"""Large activations are computed for a few samples at a time, as long as nothing has to be kept of them.

A layer of a large image writes more than a processor's caches hold, and the next one reads it from memory again. What depends on
samples and constants alone needs no such array as a whole: a group of samples goes through all those layers, then the next
group, and only the small result at the end is put together. The kernels compute each sample's rows from that sample's, so the
numbers stay the same (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, call such groups micro-batches).
"""

from __future__ import annotations

from dataclasses import replace

from edgekit.compiler.by_sample import by_sample
from edgekit.compiler.rewrite import roots, with_nodes
from edgekit.graph.entry import Entry
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Op
from edgekit.graph.ops.shape import Concat, Reshape, Slice
from edgekit.graph.ops.views import Rows, is_view
from edgekit.graph.value import Type, Value
from edgekit.program.format import align

_LARGE = 4 << 20  #: bytes that a node reads and makes for the whole batch: more than stays in a core's caches
_SMALL = 1 << 20  #: bytes of all samples' results that are put together


def group_samples(entry: Entry, batch: int, within: Graph | None = None) -> Entry:
    """The entry, its beginning in groups of samples where that begins with large arrays; else the entry itself.

    ``within``: only what this graph computes too, in the same groups as there.
    """
    found = by_sample(entry, batch)
    if within is not None:
        theirs = {v for node in within.nodes for v in node.writes}
        found = (node for node in found if theirs.issuperset(node.writes))
    region = _large(list(found), entry.graph)
    if not region:
        return entry
    most = max(_made(node) for node in region)
    counts = [n for n in range(1, len(Concat.operands) + 1) if batch % n == 0]
    count = next((n for n in counts if most <= n * _LARGE), counts[-1])
    return replace(entry, graph=_grouped(entry.graph, region, count)) if count > 1 else entry


def _large(nodes: list[Node], graph: Graph) -> list[Node]:
    """Those up to the last that makes a large array, and on to where little has to be put together."""
    last = max((i for i, node in enumerate(nodes) if _made(node) > _LARGE), default=-1)
    if last < 0:
        return []
    sizes = {n: sum(v.nbytes for v in _results(graph, nodes[:n])) for n in range(last + 1, len(nodes) + 1)}
    least = min(sizes.values())
    return nodes[: next(n for n, size in sizes.items() if size <= max(least, _SMALL))]


def _made(node: Node) -> int:
    return 0 if is_view(node.op) else sum(v.nbytes for v in node.writes)


def _results(graph: Graph, region: list[Node]) -> list[Value]:
    """What the region makes and others read."""
    inside = set(region)
    read = {v for node in graph.nodes if node not in inside for v in node.reads} | {*graph.outputs}
    return [v for node in region for v in node.writes if v in read]


def _grouped(graph: Graph, region: list[Node], count: int) -> Graph:
    """The region ``count`` times, for as many samples each, before all other nodes but the views of what does not change."""
    inside = set(region)
    root = roots(graph)
    fixed = {*graph.constants, *graph.state}
    views = [n for n in graph.nodes if isinstance(n.op, Reshape) and all(root.get(v, v) in fixed for v in n.reads)]
    nodes = list(views)
    results = _results(graph, region)
    pieces: dict[Value, list[Value]] = {v: [] for v in results}
    for group in range(count):
        mine: dict[Value, Value] = {}
        for node in region:
            for v in node.reads:
                if v in graph.inputs and v not in mine:
                    mine[v] = _rows(v, group, count)
                    nodes.append(Node(_taking(v, group, mine[v].shape[0]), (v,), (mine[v],), node.origin))
            mine |= {v: _rows(v, group, count) for v in node.writes}
            nodes.append(_of(node, mine))
        for v in results:
            pieces[v].append(mine[v])
    maker = graph.producers()
    for v in results:
        parts = (*pieces[v], *[None] * (len(Concat.operands) - count))
        nodes.append(Node(Concat(0), parts, (v,), maker[v].origin))
    done = {*inside, *views}
    return with_nodes(graph, [*nodes, *(node for node in graph.nodes if node not in done)])


def _taking(value: Value, group: int, rows: int) -> Op:
    """The op that takes a group's rows: where they lie, if a kernel may read from there."""
    start = group * rows
    at = start * (value.nbytes // value.shape[0])
    return Rows(start, rows) if at == align(at) else Slice(0, start, rows)


def _rows(value: Value, group: int, count: int) -> Value:
    rows = value.shape[0] // count
    return Value(f"{value.name}.rows{group * rows}", Type((rows, *value.shape[1:]), value.dtype))


def _of(node: Node, mine: dict[Value, Value]) -> Node:
    """The node for those samples."""
    inputs, outputs = (tuple(None if v is None else mine.get(v, v) for v in values) for values in (node.inputs, node.outputs))
    op = node.op
    if isinstance(op, Reshape):
        made = outputs[0]
        assert made is not None
        op = Reshape.to(made.shape)
    return replace(node, op=op, inputs=inputs, outputs=outputs)
