"""Reverse-mode differentiation of a graph, at compile time, for exactly what is trained.

A node is differentiated only if a trained array lies behind one of its operands and its result leads to the loss. Of a
weight that is trained in part, only that part's gradient is computed, from a slice of the input activation that is taken in the
forward pass, so that the whole activation need not be kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgekit.errors import UnsupportedError
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.model import Trainable
from edgekit.graph.ops.conv import Conv2d, Conv2dWeightGrad
from edgekit.graph.ops.elementwise import Binary
from edgekit.graph.ops.function import Arithmetic
from edgekit.graph.ops.linear import Linear, LinearWeightGrad
from edgekit.graph.ops.quantized import QConv2d
from edgekit.graph.ops.shape import Reshape, Slice
from edgekit.graph.value import Value


@dataclass(frozen=True)
class Differentiated:
    """A forward graph with its backward nodes, and the gradient of each trained array that the loss depends on."""

    graph: Graph
    gradients: dict[Value, Value]


def differentiate(graph: Graph, loss: Value, trainables: Sequence[Trainable], seed: float = 1.0) -> Differentiated:
    """Append to ``graph``'s nodes those that compute ``seed`` * d loss / d trainable.

    A partly trained array's gradient is its leading block: ``channels`` long on ``in_axis``, whole on the other axes.

    Raises:
        UnsupportedError: an op between a trained array and the loss has no gradient.
    """
    path = _path(graph, loss, {t.value for t in trainables})
    forward = [_with_saved_results(n) if n in path else n for n in graph.nodes]
    tape = _Tape(Builder(Graph()), {t.value: t for t in trainables})
    if path:
        tape.gradients[loss] = tape.build.constant("loss.gradient", np.full((), seed))
    for node, original in zip(reversed(forward), reversed(graph.nodes), strict=True):
        dy = tape.gradients.get(original.outputs[0]) if original in path and original.outputs[0] else None
        if dy is not None:
            tape.differentiate(node, dy, [v in path[original] for v in node.inputs])
    backward = tape.build.graph
    nodes = _insert_slices(forward, list(tape.slices.values())) + backward.nodes
    whole = Graph(list(graph.inputs), list(graph.outputs), nodes, graph.constants | backward.constants, dict(graph.state))
    return Differentiated(whole, {t.value: tape.gradients[t.value] for t in trainables if t.value in tape.gradients})


def _path(graph: Graph, loss: Value, trained: set[Value]) -> dict[Node, set[Value]]:
    """The nodes between the trained arrays and the loss, each with those of its operands that need a gradient."""
    needing = set(trained)
    for node in graph.nodes:
        if any(v in needing for v in node.reads) and node.outputs:
            needing.add(node.outputs[0])  # type: ignore[arg-type]
    leading = {loss}
    path: dict[Node, set[Value]] = {}
    for node in reversed(graph.nodes):
        operands = {v for v in node.reads if v in needing}
        if operands and node.outputs[0] in leading:
            path[node] = operands
            leading |= operands
    return path


def _with_saved_results(node: Node) -> Node:
    """The node with the extra results that its gradient rule reads: a mask, the places of maxima."""
    missing = [i for i in node.op.saves() if node.outputs[i] is None]
    if not missing:
        return node
    y, outputs = node.outputs[0], list(node.outputs)
    assert y is not None
    types = node.op.infer(*(None if v is None else v.type for v in node.inputs))
    for i in missing:
        outputs[i] = Value(f"{y.name}.{node.op.results[i].rstrip('?')}", types[i])
    return replace(node, outputs=tuple(outputs))


def _insert_slices(forward: list[Node], slices: list[Node]) -> list[Node]:
    """Each slice goes just before the last forward node that reads what it slices, so that the whole can die there."""
    last = {v: i for i, node in enumerate(forward) for v in node.reads}
    chains: dict[int, list[Node]] = {}
    source: dict[Value, Value] = {}
    for node in slices:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        assert y is not None
        root = source.get(x, x)
        source[y] = root
        chains.setdefault(last[root], []).append(node)
    return [n for i, node in enumerate(forward) for n in (*chains.get(i, ()), node)]


@dataclass
class _Tape:
    """Gradients so far, and the nodes that make them."""

    build: Builder
    trained: dict[Value, Trainable]
    gradients: dict[Value, Value] = field(default_factory=dict)
    slices: dict[tuple[object, ...], Node] = field(default_factory=dict)  #: forward nodes, by what they compute

    def differentiate(self, node: Node, dy: Value, wanted: list[bool]) -> None:
        """Emit the gradients of the node's wanted operands and add them to what is known."""
        self.build.origin = node.origin
        rest = node.inputs[QConv2d.operands.index("rest?")] if isinstance(node.op, QConv2d) else None
        part = self._part(node.inputs[1], rest) if isinstance(node.op, (Conv2d, Linear, QConv2d)) else None
        if part is not None and wanted[1]:
            dw = self._partial_weight_gradient(node, dy, part)
            if dw is not None:
                self._add(part.value, dw)
                wanted = [w and i != 1 for i, w in enumerate(wanted)]
        if not any(wanted):
            return
        try:
            found = node.op.gradient(self.build, node, dy, wanted)
        except NotImplementedError as e:
            where = f"module {node.origin.module!r} ({node.origin.source or 'source unknown'})"
            raise UnsupportedError(
                f"the operator {node.op.name} in {where} has no gradient",
                "freeze what comes before it: choose an update that trains later layers only",
            ) from e
        for operand, gradient, want in zip(node.inputs, found, wanted, strict=True):
            if want and operand is not None and gradient is not None:
                self._add(operand, self._cut(operand, gradient))

    def _part(self, value: Value | None, rest: Value | None = None) -> Trainable | None:
        """The trainable, if only a part of this array is trained; or of a product's weight, whose ``rest`` is another array."""
        t = self.trained.get(value) if value is not None else None
        if t is not None and rest is not None:
            return t
        if t is None or t.channels is None or t.in_axis is None or t.channels >= t.value.shape[t.in_axis]:
            return None
        return t

    def _cut(self, operand: Value, gradient: Value) -> Value:
        """The trained part of a whole gradient."""
        part = self._part(operand)
        if part is None or part.in_axis is None or part.channels is None:
            return gradient
        return self.build(Slice(part.in_axis, 0, part.channels), gradient)

    def _add(self, value: Value, gradient: Value) -> None:
        known = self.gradients.get(value)
        self.gradients[value] = gradient if known is None else self.build(Binary(Arithmetic.ADD), known, gradient)

    def _partial_weight_gradient(self, node: Node, dy: Value, part: Trainable) -> Value | None:
        """The gradient of a weight's leading channels, from those channels of the input; None: no shorter way than the whole."""
        x, count = node.inputs[0], part.channels
        assert x is not None
        assert count is not None and part.in_axis is not None
        if isinstance(node.op, Linear) and part.in_axis == 0:
            return self.build(LinearWeightGrad(), self._forward_slice(x, len(x.shape) - 1, count), dy)
        if not isinstance(node.op, (Conv2d, QConv2d)):
            return None
        op, kernel, groups, quant = node.op, part.value.shape[:2], node.op.groups, None
        if isinstance(op, QConv2d):
            dy, quant = op.through(self.build, node, dy), node.inputs[op.operands.index("x_quant")]
        if part.in_axis == 2 and groups == 1:
            x = self._forward_slice(x, 3, count)
        elif part.in_axis == 2:
            split = self._forward_view(x, (*x.shape[:3], groups, x.shape[3] // groups))
            x = self._forward_view(self._forward_slice(split, 4, count), (*x.shape[:3], groups * count))
        elif part.in_axis == 3 and groups == x.shape[3] and count % (dy.shape[3] // groups) == 0:  # depthwise
            dy = self.build(Slice(3, 0, count), dy)
            groups = count // (part.value.shape[3] // groups)
            x = self._forward_slice(x, 3, groups)
        else:
            return None
        rule = Conv2dWeightGrad((kernel[0], kernel[1]), op.stride, op.padding, op.dilation, groups)
        return self.build(rule, x, dy, quant)

    def _forward_slice(self, x: Value, axis: int, count: int) -> Value:
        return x if count >= x.shape[axis] else self._forward(Slice(axis, 0, count), x, f"{x.name}.first{count}")

    def _forward_view(self, x: Value, shape: tuple[int, ...]) -> Value:
        assert math.prod(shape) == x.type.size
        return self._forward(Reshape.to(shape), x, f"{x.name}.view")

    def _forward(self, op: Slice | Reshape, x: Value, name: str) -> Value:
        """A node of the forward pass that several gradients may share."""
        key = (op, x)
        if key not in self.slices:
            self.slices[key] = Node(op, (x,), (Value(name, op.infer(x.type)[0]),), self.build.origin)
        made = self.slices[key].outputs[0]
        assert made is not None
        return made
