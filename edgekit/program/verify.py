"""The rules that a Program must keep before anything runs (docs/program-format.md, "Verification")."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.graph.entry import FILLED, Role
from edgekit.graph.op import ShapeError
from edgekit.graph.value import DType, Type
from edgekit.program import format as f

if TYPE_CHECKING:
    from edgekit.program.program import EntryRecord, OpRecord, PortRecord, Tensor

_PORT_TYPES = {
    Role.INPUT: {DType.F32, DType.I32, DType.I8},
    Role.TARGET: {DType.F32, DType.I32},
    Role.LOSS: {DType.F32},
    Role.OUTPUT: {DType.F32, DType.I32},
    Role.CORRECT: {DType.U8},
    Role.STEP: {DType.I32},
    Role.BOUNDARY: {DType.F32, DType.I8},
    Role.CACHED: {DType.F32, DType.I8},
}


class Fault(Exception):
    """A rule is broken; the text says which and where."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Fault(message)


def header(h: f.Header, size: int) -> None:
    """Numbers in range; the regions' ends inside the file."""
    require(h.architecture in set(f.Architecture), f"is for an unknown architecture {h.architecture}")
    require(h.backend in set(f.Backend), f"is for an unknown backend {h.backend}")
    require(h.tensors < f.ABSENT, f"has {h.tensors} tensors")
    require(h.accumulate >= 1 and h.batch >= 1, "accumulates or batches nothing")
    require(h.state_init_bytes <= h.state_bytes, "has more initial state than state")
    for name, offset, count in (
        ("constants", h.constants_offset, h.constants_bytes),
        ("state-init", h.state_init_offset, h.state_init_bytes),
        ("metadata", h.metadata_offset, h.metadata_bytes),
    ):
        require(offset % f.ALIGN == 0, f"has a {name} region that is not aligned")
        require(offset + count <= size, f"has a {name} region that reaches past its end")


def regions(h: f.Header, tables_end: int) -> None:
    """The regions follow the tables in order, without overlap."""
    ends = (
        (tables_end, h.constants_offset),
        (h.constants_offset + h.constants_bytes, h.state_init_offset),
        (h.state_init_offset + h.state_init_bytes, h.metadata_offset),
    )
    require(all(end <= start for end, start in ends), "has regions that overlap")


def tensor(h: f.Header, t: Tensor, where: str) -> None:
    """Aligned and inside its region."""
    size = {f.Storage.ARENA: h.arena_bytes, f.Storage.CONSTANT: h.constants_bytes, f.Storage.STATE: h.state_bytes}[t.storage]
    require(t.type.size < 1 << 31, f"{where}: more than 2^31 - 1 elements")
    require(t.offset % f.ALIGN == 0, f"{where}: not aligned")
    require(t.offset + t.type.nbytes <= size, f"{where}: reaches past its region")


def op(o: OpRecord, tensors: Sequence[Tensor], where: str) -> None:
    """Operands present and fitting, results of the inferred types, writes only where they may go."""
    cls = type(o.op)
    require(all(math.isfinite(v) for v in vars(o.op).values() if isinstance(v, float)), f"{where}: an attribute is not finite")
    for names, numbers in ((cls.operands, o.inputs), (cls.results, o.outputs)):
        for name, n in zip(names, numbers, strict=True):
            require(n is not None or name.endswith("?"), f"{where}: {cls.name} lacks {name}")
    operands: list[Type | None] = [None if n is None else tensors[n].type for n in o.inputs]
    try:
        types = o.op.infer(*operands)
    except (ShapeError, AssertionError, ValueError) as e:
        raise Fault(f"{where}: {e}") from None
    for n, type_ in zip(o.outputs, types, strict=True):
        if n is not None:
            require(tensors[n].type == type_, f"{where}: {cls.name} makes {type_}, not {tensors[n].type}")
            require(tensors[n].storage is f.Storage.ARENA, f"{where}: a result outside the arena")
    for i in cls.mutates:
        n = o.inputs[i]
        require(
            n is None or tensors[n].storage is f.Storage.STATE, f"{where}: {cls.name} writes {cls.operands[i]} outside the state"
        )


def port(p: PortRecord, t: Tensor, where: str) -> None:
    """The role's element type and shape; what the runner fills lies in the arena."""
    require(t.type.dtype in _PORT_TYPES[p.role], f"{where}: a {p.role.name.lower()} of type {t.type}")
    require(p.role is not Role.LOSS or t.type.shape == (), f"{where}: the loss is {t.type}, no scalar")
    require(p.role is not Role.STEP or t.type.shape == (2,), f"{where}: the step is {t.type}, not i32[2]")
    require(p.role not in FILLED or t.storage is f.Storage.ARENA, f"{where}: the runner would write outside the arena")
    require(p.low <= p.high, f"{where}: the range {p.low}…{p.high} is empty")


def halves(entries: Mapping[str, EntryRecord], tensors: Sequence[Tensor]) -> None:
    """Prefix and suffix come together, and agree on what is between them."""
    found = {"prefix", "suffix"} & set(entries)
    if not found:
        return
    require(len(found) == 2 and "train_step" in entries, "has not all of prefix, suffix and train_step")
    made, cached = (
        {p.index: tensors[p.tensor].type for p in entries[name].ports if p.role is role}
        for name, role in (("prefix", Role.BOUNDARY), ("suffix", Role.CACHED))
    )
    require(made == cached, "has a suffix that starts from other arrays than its prefix makes")
