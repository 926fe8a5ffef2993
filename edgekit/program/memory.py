"""How an entry uses its arena over time, read off a Program: what lives from which op to which, and what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.graph.entry import FILLED
from edgekit.graph.value import DType
from edgekit.program.format import Storage, align
from edgekit.program.program import Program, Tensor

#: what arena memory is for, in the order of drawing
PURPOSES = ("inputs", "saved activations", "masks", "activations", "recomputed activations", "gradients", "parameter gradients")


@dataclass(frozen=True)
class Timeline:
    """Bytes in use, by purpose, while each op runs; ``total`` is their sum. One item an op."""

    ops: tuple[str, ...]
    phases: tuple[str, ...]
    by_purpose: dict[str, tuple[int, ...]]
    total: tuple[int, ...]


@dataclass
class _Life:
    """One stay of a tensor in the arena: from the op that writes it to the last that reads it."""

    tensor: Tensor
    phase: str
    start: int
    end: int
    read_by: set[str]

    @property
    def purpose(self) -> str:
        if self.phase == "input":
            return "inputs"
        if self.phase == "recomputed":
            return "recomputed activations"
        if self.phase != "forward":
            return "parameter gradients" if "update" in self.read_by else "gradients"
        if not self.read_by & {"backward", "recomputed", "update"}:
            return "activations"
        return "saved activations" if self.tensor.type.dtype in (DType.F32, DType.I8) else "masks"


def timeline(program: Program, entry: str, phases: Sequence[str]) -> Timeline:
    """The arena of one entry; ``phases`` of its ops."""
    record = program.entries[entry]
    lives = _lives(program, entry, phases)
    count = max(len(record.ops), 1)
    by_purpose = {purpose: [0] * count for purpose in PURPOSES}
    for life in lives:
        for i in range(max(life.start, 0), min(life.end, count - 1) + 1):
            by_purpose[life.purpose][i] += align(life.tensor.type.nbytes)
    used = {purpose: tuple(sizes) for purpose, sizes in by_purpose.items() if any(sizes)}
    total = tuple(map(sum, zip(*used.values(), strict=True))) if used else (0,) * count
    return Timeline(tuple(o.op.name for o in record.ops), tuple(phases), used, total)


def _lives(program: Program, entry: str, phases: Sequence[str]) -> list[_Life]:
    """All stays. A tensor that is read and was never written is a view of what lies at its offset, or around it."""
    record = program.entries[entry]
    lives: list[_Life] = []
    here: dict[int, _Life] = {}  # by offset: what was written there last

    def begin(number: int, phase: str, at: int) -> None:
        tensor = program.tensors[number]
        old = here.get(tensor.offset)
        if old is not None and old.end == at:  # made in place of its operand
            old.end = at - 1
        life = _Life(tensor, phase, at, at, set())
        here[tensor.offset] = life
        lives.append(life)

    def holder(offset: int) -> _Life:
        around = (life for at, life in here.items() if at < offset < at + life.tensor.type.nbytes)
        return here[offset] if offset in here else max(around, key=lambda life: life.start)

    for p in record.ports:
        if p.role in FILLED:
            begin(p.tensor, "input", -1)
    for i, o in enumerate(record.ops):
        for n in o.inputs:
            if n is not None and program.tensors[n].storage is Storage.ARENA:
                life = holder(program.tensors[n].offset)
                life.end = i
                life.read_by.add(phases[i])
        for n in o.outputs:
            if n is not None:
                begin(n, phases[i], i)
    for p in record.ports:
        tensor = program.tensors[p.tensor]
        if p.role not in FILLED and tensor.storage is Storage.ARENA:
            holder(tensor.offset).end = len(record.ops)
    return lives
