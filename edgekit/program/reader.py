"""The bytes of a Program file → ``Program``, verified: the Python twin of ``firmware/core/program.c``."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from edgekit.errors import IntegrityError
from edgekit.graph.entry import Role
from edgekit.graph.graph import Origin
from edgekit.graph.ops import OPS
from edgekit.graph.value import MAX_RANK, DType, Type
from edgekit.program import format as f
from edgekit.program import verify
from edgekit.program.attributes import pack, unpack
from edgekit.program.program import EntryRecord, OpRecord, PortRecord, Program, Tensor

_AGAIN = "make the file again with `edgekit compile`, or copy it again"


def read_program(data: bytes, origin: str) -> Program:
    """Decode and verify; every fault is an IntegrityError whose message starts with ``origin``."""
    try:
        return _read(data)
    except verify.Fault as fault:
        raise IntegrityError(f"{origin}: {fault}", fault.hint or _AGAIN) from None


def _read(data: bytes) -> Program:
    header = _header(data)
    verify.header(header, len(data))
    at = f.HEADER.size
    counts = (header.tensors, header.ops, header.entries, header.ports)
    tables = []
    for record, count in zip((f.TENSOR, f.OP, f.ENTRY, f.PORT), counts, strict=True):
        verify.require(at + record.size * count <= len(data), "a table reaches past the file's end")
        tables.append([record.unpack_from(data, at + record.size * i) for i in range(count)])
        at = f.align(at + record.size * count)
    verify.regions(header, at)
    metadata = _metadata(data, header)
    tensors = _tensors(tables[0], metadata["tensors"])
    for i, t in enumerate(tensors):
        verify.tensor(header, t, f"tensor {i}")
    ops = _ops(tables[1], metadata["ops"], len(tensors))
    for i, o in enumerate(ops):
        verify.op(o, tensors, f"op {i}")
    ports = [_port(i, fields, len(tensors)) for i, fields in enumerate(tables[3])]
    for i, p in enumerate(ports):
        verify.port(p, tensors[p.tensor], f"port {i}")
    entries = _entries(tables[2], ops, ports, header)
    verify.halves(entries, tensors)
    return Program(data, header, tensors, ops, entries, metadata)


def _header(data: bytes) -> f.Header:
    verify.require(data[:8] == f.MAGIC, "is no Program file")
    verify.require(len(data) >= f.HEADER.size, "is cut: it ends within the header")
    fields = f.HEADER.unpack_from(data)
    version, header_bytes, file_bytes, digest = fields[1:5]
    if version != f.VERSION:
        raise verify.Fault(
            f"has format version {version}, this edgekit reads {f.VERSION}", "compile the model again with this edgekit"
        )
    verify.require(header_bytes == f.HEADER.size, f"has a header of {header_bytes} bytes")
    verify.require(file_bytes == len(data), f"is cut or extended: it has {len(data)} bytes, its header says {file_bytes}")
    verify.require(hashlib.sha256(memoryview(data)[f.DIGEST_FROM :]).digest() == digest, "is damaged: its SHA-256 does not match")
    verify.require(not any(fields[-1]), "has a reserved field that is not zero")
    return f.Header(version, file_bytes, *fields[5:-1])


def _metadata(data: bytes, header: f.Header) -> dict[str, Any]:
    """The metadata; with as many tensor names and op origins as there are tensors and ops."""
    try:
        found: Any = json.loads(data[header.metadata_offset :][: header.metadata_bytes] or b"{}")
    except (ValueError, RecursionError) as e:
        raise verify.Fault(f"has metadata that is no JSON: {e}") from None
    if not isinstance(found, dict):
        raise verify.Fault("has metadata that is no JSON object")
    for key, count, blank in (("tensors", header.tensors, ""), ("ops", header.ops, ("", ""))):
        found.setdefault(key, [blank] * count)
        verify.require(isinstance(found[key], list) and len(found[key]) == count, f"has metadata that does not name all {key}")
    pairs = all(isinstance(o, (list, tuple)) and len(o) == 2 and all(isinstance(part, str) for part in o) for o in found["ops"])
    verify.require(pairs, "has metadata whose op origins are no pairs of words")
    return found


def _tensors(table: list[tuple[Any, ...]], names: list[str]) -> tuple[Tensor, ...]:
    made = []
    for i, (dtype, rank, storage, zero0, zero1, *rest) in enumerate(table):
        dims, offset, nbytes = tuple(rest[:MAX_RANK]), rest[-2], rest[-1]
        where = f"tensor {i}"
        verify.require(zero0 == zero1 == 0, f"{where}: a reserved field is not zero")
        verify.require(dtype in set(DType), f"{where}: unknown element type {dtype}")
        verify.require(storage in set(f.Storage), f"{where}: unknown storage {storage}")
        verify.require(rank <= MAX_RANK and all(d == 1 for d in dims[rank:]), f"{where}: bad rank {rank} of {dims}")
        verify.require(min(dims) >= 1, f"{where}: an axis of length 0")
        type_ = Type(dims[:rank], DType(dtype))
        verify.require(nbytes == type_.nbytes, f"{where}: {type_} does not take {nbytes} bytes")
        made.append(Tensor(str(names[i]), type_, f.Storage(storage), offset))
    return tuple(made)


def _ops(table: list[tuple[Any, ...]], origins: list[Any], tensors: int) -> tuple[OpRecord, ...]:
    made = []
    for i, (code, zero0, *rest) in enumerate(table):
        where = f"op {i}"
        numbers, words = rest[:-1], rest[-1]
        verify.require(zero0 == 0, f"{where}: a reserved field is not zero")
        verify.require(code in OPS and code != 0, f"{where}: unknown opcode {code}")
        cls = OPS[code]
        try:
            op = unpack(cls, words)
        except (ValueError, struct.error) as e:
            raise verify.Fault(f"{where}: {e}") from None
        verify.require(pack(op) == words, f"{where}: attribute words of {cls.name} out of range")
        verify.require(all(n == f.ABSENT or n < tensors for n in numbers), f"{where}: a tensor number out of range")
        known = [None if n == f.ABSENT else n for n in numbers]
        inputs, outputs = known[: f.MAX_INPUTS], known[f.MAX_INPUTS :]
        for given, names in ((inputs, cls.operands), (outputs, cls.results)):
            verify.require(not any(n is not None for n in given[len(names) :]), f"{where}: more operands than {cls.name} has")
        origin = Origin(*origins[i])
        made.append(OpRecord(op, tuple(inputs[: len(cls.operands)]), tuple(outputs[: len(cls.results)]), origin))
    return tuple(made)


def _port(i: int, fields: tuple[int, ...], tensors: int) -> PortRecord:
    role, index, tensor, zero0, low, high, ignore, zero1 = fields
    verify.require(zero0 == zero1 == 0, f"port {i}: a reserved field is not zero")
    verify.require(role in set(Role), f"port {i}: unknown role {role}")
    verify.require(tensor < tensors, f"port {i}: a tensor number out of range")
    return PortRecord(Role(role), index, tensor, low, high, ignore)


def _entries(
    table: list[tuple[Any, ...]], ops: tuple[OpRecord, ...], ports: list[PortRecord], header: f.Header
) -> dict[str, EntryRecord]:
    made: dict[str, EntryRecord] = {}
    for i, (kind, first_op, n_ops, first_port, n_ports, zero, arena) in enumerate(table):
        where = f"entry {i}"
        verify.require(zero == 0, f"{where}: a reserved field is not zero")
        verify.require(kind in set(f.EntryKind), f"{where}: unknown kind {kind}")
        name = f.EntryKind(kind).name.lower()
        verify.require(name not in made, f"{where}: {name} stands twice")
        verify.require(first_op + n_ops <= len(ops) and first_port + n_ports <= len(ports), f"{where}: reaches past the tables")
        verify.require(arena <= header.arena_bytes, f"{where}: more arena than the header says")
        mine = tuple(ports[first_port : first_port + n_ports])
        verify.require(len({(p.role, p.index) for p in mine}) == len(mine), f"{where}: a port stands twice")
        made[name] = EntryRecord(f.EntryKind(kind), first_op, ops[first_op : first_op + n_ops], mine, arena)
    return made
