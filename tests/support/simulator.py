"""For tests: runs a Program's bytes, op by op, in a real arena, by the ops' reference results. What overlaps, spoils numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.graph.entry import FILLED, Role
from edgekit.graph.op import Array
from edgekit.program import Program, Storage
from edgekit.program.arrays import decode, encode


class Simulator:
    """The memory of a board with one Program loaded."""

    def __init__(self, program: Program) -> None:
        self.program = program
        h = program.header
        constants = program.data[h.constants_offset :][: h.constants_bytes]
        initial = program.data[h.state_init_offset :][: h.state_init_bytes]
        self.memory = {
            Storage.ARENA: bytearray(h.arena_bytes),
            Storage.CONSTANT: bytearray(constants),
            Storage.STATE: bytearray(initial.ljust(h.state_bytes, b"\0")),
        }

    def read(self, number: int) -> Array:
        t = self.program.tensors[number]
        return decode(bytes(self.memory[t.storage][t.offset : t.offset + t.type.nbytes]), t.type)

    def write(self, number: int, array: Array) -> None:
        t = self.program.tensors[number]
        self.memory[t.storage][t.offset : t.offset + t.type.nbytes] = encode(array, t.type)

    def state(self, name: str) -> Array:
        t = self.program.tensor(name)
        return decode(bytes(self.memory[t.storage][t.offset : t.offset + t.type.nbytes]), t.type)

    def run(self, entry: str, feeds: Mapping[tuple[Role, int], Array]) -> dict[tuple[Role, int], Array]:
        """Fill the ports, run the entry in an arena of junk, read the other ports."""
        record = self.program.entries[entry]
        self.memory[Storage.ARENA][:] = np.full(len(self.memory[Storage.ARENA]), 0x7F, np.uint8).tobytes()  # 3e38 as f32
        for p in record.ports:
            if p.role in FILLED:
                self.write(p.tensor, feeds[p.role, p.index])
        for op in record.ops:
            results = op.op.reference(*(None if n is None else self.read(n) for n in op.inputs))
            changed = [op.inputs[i] for i in op.op.mutates if op.inputs[i] is not None]
            for n, array in zip((*op.outputs, *changed), results, strict=True):
                if n is not None:
                    self.write(n, array)
        assert all(o.first_op + len(o.ops) <= len(self.program.ops) for o in self.program.entries.values())
        return {(p.role, p.index): self.read(p.tensor) for p in record.ports if p.role not in FILLED}
