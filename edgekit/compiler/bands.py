"""The first layers of a network work on large images, of which small ones remain: they can run for some rows at a time.

A row of a convolution's result depends on few rows of its input, so a chain of layers can be computed in bands, from the image to
a small result, and no large activation in between ever exists as a whole (Lin et al., "MCUNetV2", NeurIPS 2021: patch-based
inference). The rows where bands meet are computed twice. Nothing before the first trained array is read in backward, so its bands
need no gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from edgekit.compiler.split import Peak, peak_of, split_wide
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.model import Model
from edgekit.graph.ops.quantized import QAdd, QConv2d
from edgekit.graph.ops.shape import Concat, Permute, Slice
from edgekit.graph.value import Value
from edgekit.training.plan import restrict

BANDS = (2, 4, 8)
_CHANNELS_LAST = Permute.of(0, 2, 3, 1)
_LEAST_ROWS = 8  #: of a result that is made in bands
_WORTH = 0.98  #: of the peak: what saves less is not done
_Rows = tuple[int, int]  #: first, and the one after the last


@dataclass(frozen=True)
class _Region:
    """Nodes in order, which compute ``target`` from ``source`` and whose other results nothing else reads."""

    source: Value
    nodes: tuple[Node, ...]
    target: Value


@dataclass(frozen=True)
class _Piece:
    """Some rows of a value."""

    value: Value
    start: int
    stop: int


def split_rows(model: Model, measure: Callable[[Model], Peak]) -> Model:
    """The model, its first layers in bands and then its wide pairs by channels, where that lowers ``measure`` more than the pairs
    alone. Which layers, and in how many bands, is found by the forward pass's own peak, which takes no time."""
    plain = split_wide(model, measure)
    tried = [(split_wide(m, _forward_peak), m) for m in _banded(model)]
    least = min((_forward_peak(m).nbytes for m, _ in tried), default=None)
    if least is None:
        return plain
    good = [m for narrow, m in tried if _WORTH * _forward_peak(narrow).nbytes <= least]
    best = split_wide(min(good, key=_work), measure)
    return best if measure(best).nbytes < _WORTH * measure(plain).nbytes else plain


def _forward_peak(model: Model) -> Peak:
    return peak_of(restrict(model.graph, [model.loss]))


def _work(model: Model) -> int:
    return sum(node.op.flops(node) for node in model.graph.nodes)


def _banded(model: Model) -> Iterator[Model]:
    """The model with every region that there is, in so many bands."""
    for region in _regions(model):
        rows = region.target.shape[1]
        for count in (n for n in BANDS if rows >= n * 2):
            yield _replace(model, region, count)


def _regions(model: Model) -> Iterator[_Region]:
    """From the image to each result of the frozen head that makes the image smaller."""
    graph = model.graph
    kept = {*graph.outputs, *model.outputs, model.loss}
    readers = graph.consumers()
    for source in _images(model):
        inside: list[Node] = []
        known = {source}
        for node in graph.nodes:
            y = node.outputs[0] if node.outputs else None
            if y is None or not known.intersection(node.reads):
                continue
            if not _by_rows(node, known, source, graph) or y in kept:
                break
            inside.append(node)
            known.add(y)
            closed = all(r in inside for v in known if v is not y for r in readers.get(v, ()))
            if closed and y.nbytes * 4 <= max(v.nbytes for v in known) and y.shape[1] >= _LEAST_ROWS:
                yield _Region(source, tuple(inside), y)


def _images(model: Model) -> Iterator[Value]:
    return (v for v in model.inputs if len(v.shape) == 4 and v in model.graph.inputs)


def _by_rows(node: Node, known: set[Value], source: Value, graph: Graph) -> bool:
    """Whether the node's rows come from rows of what is known, and nothing in it is trained."""
    if any(v in graph.state for v in node.reads):
        return False
    if node.op == _CHANNELS_LAST:
        return node.inputs[0] is source
    if isinstance(node.op, QConv2d):
        return not node.op.real
    images = [v for v in node.reads if len(v.shape) == 4]
    return (isinstance(node.op, QAdd) or node.op == Concat(3)) and known.issuperset(images) and source not in images


# --- one region in bands ---


def _replace(model: Model, region: _Region, count: int) -> Model:
    rows = region.target.shape[1]
    build = Builder(replace(model.graph, nodes=[], constants=dict(model.graph.constants)))
    edges = [rows * i // count for i in range(count + 1)]
    pieces = [_band(build, region, (a, b)) for a, b in itertools.pairwise(edges)]
    joined = Node(Concat(1), (*pieces, *[None] * (len(Concat.operands) - count)), (region.target,), region.nodes[-1].origin)
    instead: dict[Node, list[Node]] = {node: [] for node in region.nodes}
    instead[region.nodes[-1]] = [*build.graph.nodes, joined]
    nodes = [n for node in model.graph.nodes for n in instead.get(node, [node])]
    return replace(model, graph=replace(build.graph, nodes=nodes))


def _band(build: Builder, region: _Region, rows: _Rows) -> Value:
    """The target's rows, by nodes that compute no others than they need."""
    wanted = _wanted(region, rows)
    pieces: dict[Value, _Piece] = {}
    for node in region.nodes:
        y = node.outputs[0]
        assert y is not None
        build.origin = node.origin
        made = _rows_of(build, node, region.source, pieces, wanted[y])
        pieces[y] = _Piece(made, *wanted[y])
    return pieces[region.target].value


def _wanted(region: _Region, rows: _Rows) -> dict[Value, _Rows]:
    """Which rows of each value all its readers need."""
    wanted = {region.target: rows}
    for node in reversed(region.nodes):
        y = node.outputs[0]
        assert y is not None
        for x in (v for v in node.reads if len(v.shape) == 4 and v not in _weights(node)):
            first, last = _needed(node, x, wanted[y])
            before = wanted.get(x, (first, last))
            wanted[x] = (min(before[0], first), max(before[1], last))
    return wanted


def _weights(node: Node) -> tuple[Value | None, ...]:
    return (node.inputs[1], node.inputs[6]) if isinstance(node.op, QConv2d) else ()


def _window(op: QConv2d, kernel: int, rows: _Rows) -> _Rows:
    """The rows that some rows of a result see, counted from the image's first one; some may lie outside."""
    first = rows[0] * op.stride[0] - op.padding[0]
    return first, (rows[1] - 1) * op.stride[0] - op.padding[0] + (kernel - 1) * op.dilation[0] + 1


def _needed(node: Node, x: Value, rows: _Rows) -> _Rows:
    """Rows of x; at least one of them lies inside."""
    if not isinstance(node.op, QConv2d):
        return rows
    w = node.inputs[1]
    assert w is not None
    first, last = _window(node.op, w.shape[0], rows)
    height = x.shape[1]
    return min(max(first, 0), height - 1), max(min(last, height), 1)


def _rows_of(build: Builder, node: Node, source: Value, pieces: dict[Value, _Piece], rows: _Rows) -> Value:
    """The node for some rows of its result."""
    y, op = node.outputs[0], node.op
    assert y is not None
    name = f"{y.name}.rows{rows[0]}"
    if op == _CHANNELS_LAST:
        return build(op, build(Slice(2, rows[0], rows[1] - rows[0]), source), name=name)
    if not isinstance(op, QConv2d):
        return build(op, *(_cut(build, pieces[v], rows) if v in pieces else v for v in node.inputs), name=name)
    x, w, *others = node.inputs
    assert x is not None and w is not None
    piece = pieces[x] if x in pieces else _Piece(x, 0, x.shape[1])
    first, last = _window(op, w.shape[0], rows)
    if op.groups > 1:
        inside = _needed(node, x, rows)
        piece = _Piece(_cut(build, piece, inside), *inside)
    padding = (piece.start - first, last - piece.stop, *op.padding[2:])
    return build(replace(op, padding=padding), piece.value, w, *others, name=name)


def _cut(build: Builder, piece: _Piece, rows: _Rows) -> Value:
    """Those rows of the piece."""
    if (piece.start, piece.stop) == rows:
        return piece.value
    return build(Slice(1, rows[0] - piece.start, rows[1] - rows[0]), piece.value)
