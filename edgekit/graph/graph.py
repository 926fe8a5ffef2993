"""The intermediate representation: a list of nodes in execution order over named, typed values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.value import Value


@dataclass(frozen=True)
class Origin:
    """Where a node comes from in the user's model, for errors and profiles."""

    module: str = ""  #: dotted path of the module, e.g. ``features.3.conv.1``
    source: str = ""  #: ``file.py:12`` of the user's line


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an operator. Absent optional operands and results are ``None``.

    ``recomputed`` marks a copy of a forward node that stands in backward to save memory.
    """

    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    origin: Origin = Origin()
    recomputed: bool = False

    @property
    def reads(self) -> Iterator[Value]:
        return (v for v in self.inputs if v is not None)

    @property
    def writes(self) -> Iterator[Value]:
        return (v for v in self.outputs if v is not None)

    def __repr__(self) -> str:
        return f"{list(self.outputs)} = {self.op}({', '.join(map(repr, self.inputs))})"


@dataclass
class Graph:
    """One entry point: ``outputs`` computed from ``inputs``, ``constants`` and ``state`` by ``nodes`` in order.

    Entry points of one program share their constants' and states' ``Value`` objects.

    Attributes:
        constants: arrays that never change on the board (frozen parameters, update factors).
        state: arrays that the board changes and keeps between runs (trained parameters, momentum, accumulated
            gradients), with their first contents.
    """

    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[Value, Array] = field(default_factory=dict)
    state: dict[Value, Array] = field(default_factory=dict)

    def producers(self) -> dict[Value, Node]:
        """The node that makes each value."""
        return {v: node for node in self.nodes for v in node.writes}

    def consumers(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order; a node that reads a value twice stands twice."""
        table: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in node.reads:
                table.setdefault(v, []).append(node)
        return table

    def array(self, value: Value) -> Array | None:
        """The contents of a constant or of a state's start; None for any other value."""
        found = self.constants.get(value)
        return self.state.get(value) if found is None else found

    def validate(self) -> None:
        """Check order, single assignment and types.

        Raises:
            ValueError: a node reads what no earlier node made, a value is made twice, or a type is not the op's.
        """
        known = {*self.inputs, *self.constants, *self.state}
        for node in self.nodes:
            for v in node.reads:
                if v not in known:
                    raise ValueError(f"{node} reads {v!r} before it is made")
            types = node.op.infer(*(None if v is None else v.type for v in node.inputs))
            for made, t in zip(node.outputs, types, strict=True):
                if made is None:
                    continue
                if made in known:
                    raise ValueError(f"{made!r} is made twice")
                if made.type != t:
                    raise ValueError(f"{node.op.name} makes {t}, not {made!r}")
                known.add(made)
        for v in self.outputs:
            if v not in known:
                raise ValueError(f"the output {v!r} is made by no node")
        for v, a in [*self.constants.items(), *self.state.items()]:
            if np.shape(a) != v.shape:
                raise ValueError(f"the contents of {v!r} have shape {np.shape(a)}")
