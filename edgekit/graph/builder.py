"""A builder appends nodes to a graph and names their results."""

from __future__ import annotations

import itertools

from edgekit.graph.graph import Graph, Node, Origin
from edgekit.graph.op import Array, Op
from edgekit.graph.value import DType, Type, Value


class Builder:
    """Appends nodes to ``graph``. ``origin`` is stamped on every node until it is changed."""

    def __init__(self, graph: Graph | None = None, origin: Origin = Origin()) -> None:
        self.graph = graph or Graph()
        self.origin = origin
        self._names = itertools.count()

    def input(self, name: str, shape: tuple[int, ...], dtype: DType = DType.F32) -> Value:
        value = Value(name, Type(tuple(shape), dtype))
        self.graph.inputs.append(value)
        return value

    def constant(self, name: str, array: Array, dtype: DType = DType.F32) -> Value:
        value = Value(name, Type(tuple(array.shape), dtype))
        self.graph.constants[value] = array
        return value

    def state(self, name: str, array: Array, dtype: DType = DType.F32) -> Value:
        value = Value(name, Type(tuple(array.shape), dtype))
        self.graph.state[value] = array
        return value

    def emit(self, op: Op, *operands: Value | None, results: tuple[int, ...] = (0,), name: str = "") -> tuple[Value, ...]:
        """Append a node that makes the named ``results`` (indices) and return those, in that order.

        Raises:
            ShapeError: the operands do not fit the op.
        """
        operands = operands + (None,) * (len(op.operands) - len(operands))
        types = op.infer(*(None if v is None else v.type for v in operands))
        stem = name or f"{op.name}{next(self._names)}"
        made = {i: Value(stem if i == 0 else f"{stem}.{op.results[i].rstrip('?')}", types[i]) for i in results}
        outputs = tuple(made.get(i) for i in range(len(types)))
        self.graph.nodes.append(Node(op, operands, outputs, self.origin))
        return tuple(made[i] for i in results)

    def __call__(self, op: Op, *operands: Value | None, name: str = "") -> Value:
        """``emit`` for the common case of one result."""
        return self.emit(op, *operands, name=name)[0]
