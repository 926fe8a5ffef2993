"""Moves permutations through the forward graph until they cancel.

The frontend writes an NCHW model as NHWC operators between permutations. Here every value is known as a *view*: another value
and the permutation that would make it. Operators that do not care for the order of axes compute on the value itself and pass
the permutation on; one that does care gets the permuted array, which between two convolutions is the value as it is.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, field, replace

from edgekit.compiler.permutation import Perm, compose, inverse, is_identity, moves_nothing
from edgekit.compiler.reshapes import reorder_rows, sink_reshapes
from edgekit.graph.graph import Graph, Node
from edgekit.graph.model import Model
from edgekit.graph.op import Array, Op
from edgekit.graph.ops.elementwise import Affine, Binary, Dropout, Expand, Reduce, Unary
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.loss import Softmax
from edgekit.graph.ops.norm import BatchNorm
from edgekit.graph.ops.shape import Concat, Permute, Reshape, Slice, Unslice
from edgekit.graph.value import Value


def move_permutes(model: Model, keep: Set[str] = frozenset()) -> Model:
    """The model with as few permutations as this finds; inputs and outputs stay in the user's order of axes.

    A linear layer that reads a flattened image gets the rows of its weight reordered instead of the image, unless ``keep``
    names the weight (one of which a part of the input channels is trained, in the user's order).
    """
    return sink_reshapes(reorder_rows(_Mover(model).run(), keep))


@dataclass(frozen=True)
class _View:
    """``base.transpose(perm)``."""

    base: Value
    perm: Perm

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape[p] for p in self.perm)


@dataclass
class _Mover:
    """Rebuilds the graph on views."""

    model: Model
    nodes: list[Node] = field(default_factory=list)
    constants: dict[Value, Array] = field(default_factory=dict)
    views: dict[Value, _View] = field(default_factory=dict)
    made: dict[tuple[Value, Perm], Value] = field(default_factory=dict)
    node: Node | None = None

    def run(self) -> Model:
        old = self.model.graph
        self.constants.update(old.constants)
        for self.node in old.nodes:
            self._add(self.node)
        outputs = {v: self._plain(v) for v in (*old.outputs, *self.model.outputs, self.model.loss)}
        graph = Graph(list(old.inputs), [outputs[v] for v in old.outputs], self.nodes, self.constants, dict(old.state))
        return replace(self.model, graph=graph, outputs=[outputs[v] for v in self.model.outputs], loss=outputs[self.model.loss])

    def _view(self, value: Value) -> _View:
        return self.views.get(value) or _View(value, tuple(range(len(value.shape))))

    def _plain(self, value: Value) -> Value:
        """The value with its own order of axes."""
        view = self._view(value)
        return self._permuted(view.base, view.perm)

    def _permuted(self, base: Value, perm: Perm) -> Value:
        if is_identity(perm):
            return base
        key = (base, perm)
        if key not in self.made:
            shape = tuple(base.shape[p] for p in perm)
            self.made[key] = self._emit(Reshape.to(shape) if moves_nothing(base.shape, perm) else Permute.of(*perm), base)
        return self.made[key]

    def _emit(self, op: Op, *operands: Value | None) -> Value:
        """A node of one result, named as the one that it stands for."""
        assert self.node is not None
        types = op.infer(*(None if v is None else v.type for v in operands))
        first = self.node.outputs[0]
        y = Value(first.name if first is not None else op.name, types[0])
        self.nodes.append(Node(op, operands, (y,) + (None,) * (len(types) - 1), self.node.origin))
        return y

    def _add(self, node: Node) -> None:
        result = self._moved(node)
        y = node.outputs[0]
        if result is None or y is None or any(v is not None for v in node.outputs[1:]):
            self.nodes.append(replace(node, inputs=tuple(None if v is None else self._plain(v) for v in node.inputs)))
        else:
            self.views[y] = result

    def _moved(self, node: Node) -> _View | None:
        """The node's result as a view; None where the node needs its operands as they are."""
        op = node.op
        operands = tuple(v for v in node.inputs if v is not None)
        first = self._view(operands[0])
        match op:
            case Permute():
                return _View(first.base, compose(op.axes, first.perm))
            case Unary() | Dropout():
                return _View(self._emit(op, first.base, *node.inputs[1:]), first.perm)
            case Binary():
                return self._binary(op, *operands)
            case Reduce():
                return self._reduce(op, first)
            case Concat():
                return self._concat(op, operands)
            case Slice() | Unslice():
                return _View(self._emit(replace(op, axis=first.perm[op.axis]), first.base), first.perm)
            case Reshape():
                return self._reshape(op, first)
            case Expand():
                return self._expand(op, operands[0])
            case BatchNorm() | Affine() | Linear() | Softmax() if first.perm[-1:] == (len(first.perm) - 1,):
                rest = tuple(None if v is None else self._plain(v) for v in node.inputs[1:])
                residual = isinstance(op, Linear) and len(rest) == 3 and rest[2] is not None
                return None if residual else _View(self._emit(op, first.base, *rest), first.perm)
        return None

    def _binary(self, op: Binary, a: Value, b: Value) -> _View:
        """In the order of axes of the larger operand, of a permuted one where both are full."""
        rank = max(len(a.shape), len(b.shape))
        views = [self._view(a), self._view(b)]
        full = [v for v in views if len(v.perm) == rank]
        lead = max(full, key=lambda v: (v.base.type.size, not is_identity(v.perm)))
        x, y = (self._as(v, lead.perm) for v in views)
        return _View(self._emit(op, x, y), lead.perm)

    def _as(self, view: _View, perm: Perm) -> Value:
        """The value whose transpose by ``perm`` is this view, leading axes of length 1 added."""
        missing = len(perm) - len(view.perm)
        if missing == 0:
            return self._permuted(view.base, compose(inverse(perm), view.perm))
        value = self._permuted(view.base, view.perm)
        if is_identity(perm) or not value.shape:
            return value
        padded = (1,) * missing + value.shape
        shape = tuple(padded[p] for p in inverse(perm))
        if moves_nothing(padded, inverse(perm)):
            return self._emit(Reshape.to(shape), value)
        return self._emit(Permute.of(*inverse(perm)), self._emit(Reshape.to(padded), value))

    def _reduce(self, op: Reduce, x: _View) -> _View:
        chosen = [i for i in range(len(x.perm)) if op.axes >> i & 1]
        axes = sum(1 << x.perm[i] for i in chosen)
        y = self._emit(replace(op, axes=axes), x.base)
        if op.keepdims:
            return _View(y, x.perm)
        left = [p for i, p in enumerate(x.perm) if i not in chosen]
        return _View(y, tuple(sorted(left).index(p) for p in left))

    def _concat(self, op: Concat, parts: tuple[Value, ...]) -> _View:
        views = [self._view(p) for p in parts]
        lead = max(views, key=lambda v: (not is_identity(v.perm), v.base.type.size))
        return _View(self._emit(Concat(lead.perm[op.axis]), *(self._as(v, lead.perm) for v in views)), lead.perm)

    def _expand(self, op: Expand, x: Value) -> _View | None:
        view, shape = self._view(x), op.infer(x.type)[0].shape
        if len(view.perm) != len(shape):
            return None
        return _View(self._emit(Expand.to(tuple(shape[p] for p in inverse(view.perm))), view.base), view.perm)

    def _reshape(self, op: Reshape, x: _View) -> _View:
        """Reshape the value itself, permuted only as far as axes that are split or merged must lie side by side.

        The groups of axes stand in the order of the value's axes, by the last of each; axes of length 1 go with the group before.
        """
        shape = op.shape[: op.rank]
        placed: list[tuple[int, list[int], list[int]]] = []
        place = -1
        for old, new in _groups(x.shape, shape):
            place = max((x.perm[axis] for axis in old if x.shape[axis] != 1), default=place)
            placed.append((place, old, new))
        placed.sort(key=lambda group: group[0])
        before = tuple(x.perm[axis] for _, old, _ in placed for axis in old)
        after = tuple(axis for _, _, new in placed for axis in new)
        y = self._emit(Reshape.to(tuple(shape[axis] for axis in after)), self._permuted(x.base, before))
        return _View(y, inverse(after))


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes, old and new, of equal products that a reshape maps to each other."""
    groups = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = ([i] if i < len(old) else []), ([j] if j < len(new) else [])
        while (a := math.prod(old[k] for k in left)) != (b := math.prod(new[k] for k in right)):
            if a < b:
                left.append(i + len(left))
            else:
                right.append(j + len(right))
        groups.append((left, right))
        i, j = i + len(left), j + len(right)
    return groups
