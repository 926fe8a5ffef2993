"""One op with its operands, and the Program that runs many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Array, Op
from edgekit.graph.value import DType, Value
from edgekit.program import Placement, Program, Storage, write_program
from edgekit.program.arrays import decode, encode

_DTYPES = {
    np.dtype(np.int32): DType.I32,
    np.dtype(np.uint8): DType.U8,
    np.dtype(np.int8): DType.I8,
    np.dtype(np.bool_): DType.BITS,
}
_ALIGN = 64
_UNWRITTEN = 0xFF  # a float of these bytes is NaN: what reads beyond its operands shows


@dataclass(frozen=True)
class Operand:
    """float32, int32, int8, uint8 or boolean (BITS) contents, and where they lie."""

    array: Array
    storage: Storage = Storage.ARENA

    def __str__(self) -> str:
        return f"{_dtype(self.array).name.lower()}{list(self.array.shape)} {self.storage.name.lower()}"


@dataclass(frozen=True)
class Case:
    """``results`` are the indices that the node makes; ``inplace`` is (result, operand) that share their memory."""

    op: Op
    operands: tuple[Operand | None, ...]
    results: tuple[int, ...] = (0,)
    inplace: tuple[int, int] | None = None

    def __str__(self) -> str:
        operands = ", ".join(str(o) for o in self.operands)
        made = ", ".join(self.op.results[i].rstrip("?") for i in self.results)
        shared = "" if self.inplace is None else f", {self.op.results[self.inplace[0]]} over {self.op.operands[self.inplace[1]]}"
        return f"{self.op} of ({operands}) making ({made}){shared}"

    def node(self) -> Node:
        """The case's node by itself."""
        build = Builder()
        _emit(build, self, "")
        return build.graph.nodes[0]


@dataclass
class Bundle:
    """A Program whose ``predict`` runs all cases, each on memory of its own.

    Attributes:
        arena: the arena's contents before the run.
    """

    program: Program
    arena: bytes
    state: bytes
    cases: Sequence[Case]
    nodes: Sequence[Node]
    offsets: dict[Value, int]
    states: dict[Value, int]
    graph: Graph

    def results(self, at: int, arena: bytes) -> dict[int, Array]:
        """What case ``at`` made, by result index."""
        node = self.nodes[at]
        return {i: _read(arena, self.offsets[v], v) for i, v in enumerate(node.outputs) if v is not None}

    def mutated(self, at: int, state: bytes) -> list[Array]:
        """The contents after the run of the operands that case ``at`` mutates, in the order of ``Op.mutates``."""
        node = self.nodes[at]
        return [_read(state, self.states[v], v) for v in (node.inputs[i] for i in node.op.mutates) if v is not None]

    def strayed(self, arena: bytes, state: bytes) -> str:
        """What was written outside of results, "" where nothing was."""
        written = [(self.offsets[v], v.nbytes) for node in self.nodes for v in node.writes]
        changed = [
            (self.states[v], v.nbytes) for node in self.nodes for i in node.op.mutates if (v := node.inputs[i]) is not None
        ]
        return self._difference("arena", arena, written) or self._difference("state", state, changed)

    def _difference(self, region: str, after: bytes, allowed: Sequence[tuple[int, int]]) -> str:
        before, places = (self.arena, self.offsets) if region == "arena" else (self.state, self.states)
        changed = np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
        for offset, size in allowed:
            changed[offset : offset + size] = False
        where = np.flatnonzero(changed)
        if not where.size:
            return ""
        start, nearest = max(((s, v) for v, s in places.items() if s <= where[0]), key=lambda p: p[0])
        case = self.cases[int(nearest.name.partition(".")[0])]
        return f"{where.size} bytes of the {region}, the first {where[0] - start} bytes after the start of {nearest} of {case}"


def bundle(cases: Sequence[Case]) -> Bundle:
    """Lay the cases out: every arena array at a place of its own, with unused bytes after it, except where two share one."""
    build = Builder()
    for i, case in enumerate(cases):
        _emit(build, case, f"{i}.")
    graph = build.graph
    offsets: dict[Value, int] = {}
    arena = bytearray()

    def place(v: Value, contents: bytes) -> None:
        offsets[v] = len(arena)
        arena.extend(contents.ljust(v.nbytes, bytes([_UNWRITTEN])))
        arena.extend(bytes([_UNWRITTEN]) * (_ALIGN + -len(arena) % _ALIGN))

    for case, node in zip(cases, graph.nodes, strict=True):
        for operand, v in zip(case.operands, node.inputs, strict=False):
            if operand is not None and v is not None and operand.storage is Storage.ARENA:
                place(v, encode(operand.array, v.type))
        for i, v in enumerate(node.outputs):
            if v is not None and case.inplace is not None and case.inplace[0] == i:
                shared = node.inputs[case.inplace[1]]
                assert shared is not None
                offsets[v] = offsets[shared]
            elif v is not None:
                place(v, b"")
    program = write_program({"predict": Entry(graph, ())}, placements={"predict": Placement(offsets, len(arena))})
    states = {v: program.tensor(v.name).offset for v in graph.state}
    state = bytearray(program.header.state_bytes)
    for v, a in graph.state.items():
        contents = encode(a, v.type)
        state[states[v] : states[v] + len(contents)] = contents
    return Bundle(program, bytes(arena), bytes(state), cases, graph.nodes, offsets, states, graph)


def _emit(build: Builder, case: Case, prefix: str) -> None:
    """Append the case's node."""
    values: list[Value | None] = []
    for name, operand in zip(case.op.operands, case.operands, strict=False):
        if operand is None:
            values.append(None)
            continue
        label, dtype = prefix + name.rstrip("?"), _dtype(operand.array)
        match operand.storage:
            case Storage.ARENA:
                values.append(build.input(label, operand.array.shape, dtype))
            case Storage.CONSTANT:
                values.append(build.constant(label, operand.array, dtype))
            case Storage.STATE:
                values.append(build.state(label, operand.array, dtype))
    build.emit(case.op, *values, results=case.results, name=f"{prefix}{case.op.name}")


def _dtype(array: Array) -> DType:
    return _DTYPES.get(array.dtype, DType.F32)


def _read(region: bytes, offset: int, v: Value) -> Array:
    return decode(region[offset : offset + v.nbytes], v.type)
