"""A wide activation between a convolution and the depthwise one, or the mean over the image, after it need not exist as a whole.

Each channel of a depthwise convolution or a mean reads only its own channel of the input, so both can run for some channels at a
time: the same integers, the same multiply-adds. What is wide in forward is so in backward too, and its gradient in float32:
splitting comes before differentiation, so that backward is split alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgekit.compiler.lifetimes import buffers, live_bytes
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.model import Model
from edgekit.graph.ops.quantized import QConv2d, QMean
from edgekit.graph.ops.shape import Concat, Slice
from edgekit.graph.value import Type, Value

PARTS = (2, 4, 8)
_GRAIN = 8  #: channels; masks stay whole bytes
_WORTH = 0.98  #: of the peak: what saves less is not done
_PATIENCE = 2  #: pairs in a row that brought nothing, and it ends


@dataclass(frozen=True)
class Peak:
    """The most bytes in use at one time, and the user's modules whose nodes run or are remembered then."""

    nbytes: int
    modules: frozenset[str]


@dataclass(frozen=True)
class _Pair:
    """A dense convolution and its only reader, which computes each channel by itself."""

    wide: Node
    reader: Node


def peak_of(graph: Graph) -> Peak:
    """Of a graph in its order."""
    pieces = buffers(graph)
    profile = live_bytes(pieces, len(graph.nodes))
    at = max(range(len(profile)), key=profile.__getitem__)
    made = graph.producers()
    live = {v for b in pieces if b.start <= at <= b.end for v in b.values}
    modules = {made[v].origin.module for v in live if v in made}
    return Peak(profile[at], frozenset(modules))


def split_wide(model: Model, measure: Callable[[Model], Peak]) -> Model:
    """Split pairs that the peak shows, in as few parts as bring about all of the gain, while that lowers the peak."""
    best, peak, tried, idle = model, measure(model), set[str](), 0
    while idle < _PATIENCE:
        candidates = [p for p in _pairs(best) if p.wide.origin.module not in tried and _at(p, peak)]
        if not candidates:
            break
        module = max(candidates, key=lambda p: _result(p.wide).nbytes).wide.origin.module
        tried.add(module)
        split = [_split_all(best, module, parts) for parts in PARTS]
        peaks = [measure(m) for m in split]
        least = min(p.nbytes for p in peaks)
        idle += 1
        if least < _WORTH * peak.nbytes:
            best, peak = next((m, p) for m, p in zip(split, peaks, strict=True) if _WORTH * p.nbytes <= least)
            idle = 0
    return best


def _result(node: Node) -> Value:
    y = node.outputs[0]
    assert y is not None
    return y


def _at(pair: _Pair, peak: Peak) -> bool:
    return bool({pair.wide.origin.module, pair.reader.origin.module} & peak.modules)


def _pairs(model: Model) -> list[_Pair]:
    graph = model.graph
    made, readers = graph.producers(), graph.consumers()
    kept = {*graph.outputs, *model.outputs}
    found = []
    for node in graph.nodes:
        each = isinstance(node.op, QMean) or (isinstance(node.op, QConv2d) and node.op.groups > 1)
        x = node.inputs[0] if each else None
        wide = made.get(x) if x is not None else None
        if wide is None or x is None or not isinstance(wide.op, QConv2d) or wide.op.groups > 1:
            continue
        if len(readers[x]) == 1 and x not in kept and x.shape[3] >= 2 * _GRAIN:
            found.append(_Pair(wide, node))
    return found


def _split_all(model: Model, module: str, parts: int) -> Model:
    """The model with all pairs of a module, which may be in bands (bands.py), in so many parts."""
    for pair in (p for p in _pairs(model) if p.wide.origin.module == module):
        model = _split(model, pair, parts)
    return model


def _split(model: Model, pair: _Pair, parts: int) -> Model:
    """The model with ``pair`` in so many parts, or fewer where there are few channels."""
    channels = _result(pair.wide).shape[3]
    width = -(-channels // (parts * _GRAIN)) * _GRAIN
    build = Builder(replace(model.graph, nodes=[], constants=dict(model.graph.constants)))
    made = []
    for start in range(0, channels, width):
        count = min(width, channels - start)
        x = pair.wide.inputs[0]
        for node in (pair.wide, pair.reader):
            build.origin = node.origin
            x = _part(build, node, x, start, count)
        made.append(x)
    y = _result(pair.reader)
    joined = Node(Concat(3), (*made, *[None] * (len(Concat.operands) - len(made))), (y,), pair.reader.origin)
    whole: dict[Node, list[Node]] = {pair.wide: [], pair.reader: [*build.graph.nodes, joined]}
    nodes = [n for node in model.graph.nodes for n in whole.get(node, [node])]
    return replace(model, graph=replace(build.graph, nodes=nodes))


def _part(build: Builder, node: Node, x: Value | None, start: int, count: int) -> Value:
    """The channels ``start`` … of a convolution's or a mean's result."""
    if isinstance(node.op, QMean):
        return build(node.op, x, *node.inputs[1:], name=f"{_result(node).name}.from{start}")
    assert isinstance(node.op, QConv2d)
    _, w, scale, x_quant, y_quant, bias, rest = node.inputs
    own = [None if v is None else _cut(build, v, start, count) for v in (w, scale, bias, rest)]
    op = replace(node.op, groups=count) if node.op.groups > 1 else node.op
    return build(op, x, own[0], own[1], x_quant, y_quant, own[2], own[3], name=f"{_result(node).name}.from{start}")


def _cut(build: Builder, v: Value, start: int, count: int) -> Value:
    """Some entries of the last axis: of a constant here and now, of a state by a slice."""
    array = build.graph.constants.get(v)
    axis = len(v.shape) - 1
    if array is None:
        return build(Slice(axis, start, count), v, name=f"{v.name}.from{start}")
    value = Value(f"{v.name}.from{start}", Type((*v.shape[:-1], count), v.dtype))
    build.graph.constants[value] = array[..., start : start + count]
    return value
