"""Graphs and a memory plan → the bytes of a Program file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import InternalError, UnsupportedError
from edgekit.graph.entry import Entry
from edgekit.graph.graph import Graph, Node
from edgekit.graph.op import Array
from edgekit.graph.ops.views import is_view, view_offset
from edgekit.graph.value import MAX_RANK, Type, Value
from edgekit.program import format as f
from edgekit.program.arrays import encode
from edgekit.program.attributes import pack
from edgekit.program.program import Program


@dataclass(frozen=True)
class Placement:
    """Where the values of one entry's arena lie. Views need not be named: they lie where what they view lies."""

    offsets: Mapping[Value, int]
    arena_bytes: int


def write_program(
    entries: Mapping[str, Entry],
    *,
    architecture: f.Architecture = f.Architecture.ANY,
    backend: f.Backend = f.Backend.CPU,
    batch: int = 1,
    accumulate: int = 1,
    metadata: Mapping[str, Any] | None = None,
    placements: Mapping[str, Placement] | None = None,
) -> Program:
    """Write the Program of these entries (by name: train_step, update, evaluate, predict).

    Without ``placements`` every arena value gets a place of its own. States that are zero at first take no bytes of the file.

    Raises:
        UnsupportedError: more tensors than the format can number.
        InternalError: the result does not pass the verifier.
    """
    tables = _Tables()
    tables.place_arrays([e.graph for e in entries.values()])
    for kind in f.EntryKind:
        name = kind.name.lower()
        if name in entries:
            placement = (placements or {}).get(name) or place_apart(entries[name].graph)
            tables.add_entry(kind, entries[name], placement)
    if len(tables.tensors) >= f.ABSENT:
        raise UnsupportedError(f"the program needs {len(tables.tensors)} tensors; the file format numbers {f.ABSENT - 1}")
    names = {"tensors": tables.names, "ops": tables.origins}
    text = json.dumps({**(metadata or {}), **names}, separators=(",", ":"), ensure_ascii=False).encode()
    return Program.from_bytes(_assemble(tables, text, architecture, backend, batch, accumulate), origin="what the writer made")


def place_apart(graph: Graph) -> Placement:
    """Every arena value at a place of its own."""
    offsets: dict[Value, int] = {}
    end = 0
    for v in arena_values(graph):
        offsets[v] = end
        end += f.align(v.nbytes)
    return Placement(offsets, end)


def arena_values(graph: Graph) -> Iterator[Value]:
    """The inputs and the results that are no views."""
    yield from graph.inputs
    for node in graph.nodes:
        if not is_view(node.op):
            yield from node.writes


class _Tables:
    """The tables and regions while they grow."""

    def __init__(self) -> None:
        self.tensors: list[bytes] = []
        self.names: list[str] = []
        self.ops: list[bytes] = []
        self.origins: list[list[str]] = []
        self.entries: list[bytes] = []
        self.ports: list[bytes] = []
        self.constants = bytearray()
        self.state_init = bytearray()
        self.state_bytes = 0
        self.arena_bytes = 0
        self._fixed: dict[Value, tuple[f.Storage, int]] = {}  # constants and states, shared by all entries
        self._fixed_numbers: dict[Value, int] = {}

    def place_arrays(self, graphs: list[Graph]) -> None:
        """Lay out the constants that are read and all states; states that start as zero come last."""
        states: dict[Value, Array] = {}
        known: dict[bytes, int] = {}
        for graph in graphs:
            states.update(graph.state)
            for v in (v for node in graph.nodes for v in node.reads):
                if v in graph.constants and v not in self._fixed:
                    content = encode(graph.constants[v], v.type)
                    if content not in known:
                        known[content] = len(self.constants)
                        _append(self.constants, content)
                    self._fixed[v] = (f.Storage.CONSTANT, known[content])
        for v in sorted(states, key=lambda v: not np.any(states[v])):
            self._fixed[v] = (f.Storage.STATE, self.state_bytes)
            if np.any(states[v]):
                _append(self.state_init, encode(states[v], v.type))
            self.state_bytes += f.align(v.nbytes)
        for v in states:
            self._fixed_numbers[v] = self._tensor(v.name, v.type, *self._fixed[v])

    def add_entry(self, kind: f.EntryKind, entry: Entry, placement: Placement) -> None:
        """Append the records of one entry."""
        numbers: dict[Value, int] = {}
        places: dict[Value, tuple[f.Storage, int]] = dict(self._fixed)
        places.update({v: (f.Storage.ARENA, at) for v, at in placement.offsets.items()})

        def number(v: Value) -> int:
            shared = v in self._fixed
            table = self._fixed_numbers if shared else numbers
            if v not in table:
                table[v] = self._tensor(v.name, v.type, *places[v])
            return table[v]

        first_op, first_port = len(self.ops), len(self.ports)
        for node in entry.graph.nodes:
            if is_view(node.op):
                (source,), (view,) = node.inputs, node.outputs
                assert source is not None and view is not None
                storage, at = places[source]
                places[view] = (storage, at + view_offset(node))
            else:
                self._op(
                    node,
                    [number(v) if v else f.ABSENT for v in node.inputs],
                    [number(v) if v else f.ABSENT for v in node.outputs],
                )
        for p in entry.ports:
            self.ports.append(f.PORT.pack(p.role, p.index, number(p.value), 0, p.low, p.high, p.ignore, 0))
        counts = (first_op, len(self.ops) - first_op, first_port, len(self.ports) - first_port)
        self.entries.append(f.ENTRY.pack(kind, *counts, 0, placement.arena_bytes))
        self.arena_bytes = max(self.arena_bytes, placement.arena_bytes)

    def _tensor(self, name: str, type_: Type, storage: f.Storage, offset: int) -> int:
        dims = type_.shape + (1,) * (MAX_RANK - len(type_.shape))
        self.tensors.append(f.TENSOR.pack(type_.dtype, len(type_.shape), storage, 0, 0, *dims, offset, type_.nbytes))
        self.names.append(name)
        return len(self.tensors) - 1

    def _op(self, node: Node, inputs: list[int], outputs: list[int]) -> None:
        if node.op.code == 0:
            raise InternalError(f"{node.op.name} (module {node.origin.module!r}) must be replaced before a Program is written")
        inputs += [f.ABSENT] * (f.MAX_INPUTS - len(inputs))
        outputs += [f.ABSENT] * (f.MAX_OUTPUTS - len(outputs))
        self.ops.append(f.OP.pack(node.op.code, 0, *inputs, *outputs, pack(node.op)))
        self.origins.append([node.origin.module, node.origin.source])


def _append(region: bytearray, content: bytes) -> None:
    region += content
    region += bytes(f.align(len(region)) - len(region))


def _assemble(tables: _Tables, metadata: bytes, architecture: int, backend: int, batch: int, accumulate: int) -> bytes:
    """Header, tables and regions, each on a multiple of ALIGN, with the digest filled in."""
    body = bytearray(f.HEADER.size)
    records = (tables.tensors, tables.ops, tables.entries, tables.ports)
    for table in records:
        _append(body, b"".join(table))
    offsets = []
    for region in (tables.constants, tables.state_init, metadata):
        offsets.append(len(body))
        _append(body, bytes(region))
    regions = [n for pair in zip(offsets, map(len, (tables.constants, tables.state_init, metadata)), strict=True) for n in pair]
    head = (f.MAGIC, f.VERSION, f.HEADER.size, len(body), bytes(32), architecture, backend, *map(len, records))
    f.HEADER.pack_into(body, 0, *head, tables.arena_bytes, tables.state_bytes, *regions, accumulate, batch, bytes(40))
    body[f.DIGEST_AT : f.DIGEST_AT + 32] = hashlib.sha256(memoryview(body)[f.DIGEST_FROM :]).digest()
    return bytes(body)


def without_metadata(data: bytes) -> bytes:
    """A Program file without what only its host reads, for an image that it becomes part of."""
    fields = list(f.HEADER.unpack_from(data))
    file_bytes, metadata_offset, metadata_bytes = 3, 17, 18
    body = bytearray(data[: fields[metadata_offset]])
    _append(body, b"{}")
    fields[file_bytes], fields[metadata_bytes] = len(body), 2
    f.HEADER.pack_into(body, 0, *fields)
    body[f.DIGEST_AT : f.DIGEST_AT + 32] = hashlib.sha256(memoryview(body)[f.DIGEST_FROM :]).digest()
    return bytes(body)
