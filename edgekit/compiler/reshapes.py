"""Reshapes of the forward graph: joined, moved out of the way of fusion, and the flattening of images before linear layers."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from edgekit.compiler.permutation import inverse
from edgekit.graph.graph import Node
from edgekit.graph.model import Layout, Model, Parameter
from edgekit.graph.ops.elementwise import Affine, Dropout, Unary
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.norm import BatchNorm
from edgekit.graph.ops.shape import Permute, Reshape
from edgekit.graph.value import Type, Value


def sink_reshapes(model: Model) -> Model:
    """Elementwise and per-channel nodes come before the reshape that they follow, so that they meet the node that computes.

    A reshape of a reshape becomes one, and none where the shape is the same again.
    """
    graph = model.graph
    fixed = {*graph.outputs}
    readers = graph.consumers()
    made: dict[Value, Node] = {}
    same: dict[Value, Value] = {}
    nodes: list[Node] = []
    for old in graph.nodes:
        node = replace(old, inputs=tuple(None if v is None else same.get(v, v) for v in old.inputs))
        x, y = node.inputs[0], node.outputs[0]
        before = made.get(x) if x is not None else None
        if before is None or x is None or y is None:
            nodes.append(node)
        elif isinstance(node.op, Reshape):
            source = before.inputs[0]
            assert source is not None
            node = replace(node, inputs=(source,))
            if source.shape == y.shape and y not in fixed:
                same[y] = source
                continue
            nodes.append(node)
        elif _passes(node, before) and len(readers[x]) == 1 and x not in fixed and y not in fixed:
            source = before.inputs[0]
            assert source is not None
            inner = Value(y.name, source.type)
            nodes.append(replace(node, inputs=(source, *node.inputs[1:]), outputs=(inner,) + (None,) * (len(node.outputs) - 1)))
            node = Node(before.op, (inner,), (y,), before.origin)
            nodes.append(node)
        else:
            nodes.append(node)
        if isinstance(node.op, Reshape) and y is not None:
            made[y] = node
    return _alive(replace(model, graph=replace(graph, nodes=nodes)))


def _passes(node: Node, reshape: Node) -> bool:
    """Whether the node may stand before the reshape that it follows."""
    x, y = reshape.inputs[0], reshape.outputs[0]
    assert x is not None and y is not None
    per_channel = isinstance(node.op, (BatchNorm, Affine)) and x.shape[-1:] == y.shape[-1:]
    return per_channel or isinstance(node.op, (Unary, Dropout))


def reorder_rows(model: Model, keep: Set[str]) -> Model:
    """Linear layers on flattened NCHW images read the flattened NHWC image; their weights' rows are reordered.

    Not those whose weight ``keep`` names.
    """
    graph = model.graph
    consumers, producers = graph.consumers(), graph.producers()
    parameters = {p.value: p for p in model.parameters.values()}
    constants, changed, weights = dict(graph.constants), dict(model.parameters), dict[Value, Value]()
    replaced: dict[Node, Node] = {}
    for flatten in graph.nodes:
        permute = producers.get(flatten.inputs[0]) if isinstance(flatten.op, Reshape) and flatten.inputs[0] else None
        if permute is None or not isinstance(permute.op, Permute) or not _flattens_rows(permute.op, flatten):
            continue
        layers = _linear_readers(flatten, consumers)
        found = {v for layer in layers or () if (v := layer.inputs[1]) is not None}
        if not layers or any(v not in constants or v in weights or set(consumers[v]) - set(layers) for v in found):
            continue
        if any(v in parameters and parameters[v].name in keep for v in found):
            continue
        for v in found:
            before = parameters[v].layout if v in parameters else Layout.permuted(v.shape[::-1], (1, 0))
            layout = _by_rows(permute, before)
            weights[v] = Value(v.name, Type(v.shape))
            constants[weights[v]] = layout.store(before.restore(constants.pop(v)))
            if v in parameters:
                p = parameters[v]
                changed[p.name] = Parameter(p.name, weights[v], layout, p.in_axis)
        replaced[flatten] = replace(flatten, inputs=permute.inputs)
        replaced.update(
            {la: replace(la, inputs=(la.inputs[0], weights[la.inputs[1]], *la.inputs[2:])) for la in layers if la.inputs[1]}
        )
    nodes = [replaced.get(n, n) for n in graph.nodes]
    return _alive(replace(model, graph=replace(graph, nodes=nodes, constants=constants), parameters=changed))


def _flattens_rows(permute: Permute, flatten: Node) -> bool:
    """Whether the axes after the first become one, and the first one stays."""
    x, y = flatten.inputs[0], flatten.outputs[0]
    assert x is not None and y is not None
    return permute.axes[0] == 0 and len(y.shape) == 2 and x.shape[0] == y.shape[0]


def _linear_readers(flatten: Node, consumers: dict[Value, list[Node]]) -> list[Node] | None:
    """The linear layers that read the flattened rows, past elementwise functions; None if anything else does."""
    found: list[Node] = []
    pending = [flatten]
    while pending:
        node = pending.pop()
        y = node.outputs[0]
        readers = consumers.get(y, []) if y is not None else []
        if not readers:
            return None
        for reader in readers:
            if isinstance(reader.op, Linear) and reader.inputs[0] is y and reader.inputs[1] is not y:
                found.append(reader)
            elif isinstance(reader.op, (Unary, Dropout)):
                pending.append(reader)
            else:
                return None
    return found


def _by_rows(permute: Node, before: Layout) -> Layout:
    """A linear weight's layout with its rows in the order of the value that was permuted."""
    (x,) = permute.inputs
    assert x is not None and isinstance(permute.op, Permute)
    axes = permute.op.axes
    view = (before.tensor[0], *(x.shape[a] for a in axes[1:]))
    return Layout(before.tensor, view, (*inverse(axes)[1:], 0), before.shape)


def _alive(model: Model) -> Model:
    """Without the nodes whose results nothing reads any more."""
    graph = model.graph
    wanted = {*graph.outputs, *model.outputs, model.loss}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in wanted for v in node.writes):
            kept.append(node)
            wanted.update(node.reads)
    constants = {v: a for v, a in graph.constants.items() if v in wanted}
    return replace(model, graph=replace(graph, nodes=kept[::-1], constants=constants))
