"""What a benchmark on a board tells: step times, memory by purpose, and each op's time beside the board's limit for it.

The limit is the roofline's (Williams, Waterman, Patterson 2009): an op takes at least its floating-point operations at the
speed of multiply-adds in registers, and at least its operands and results at the speed of memory, both measured on the board with
the same threads and instruction set. Data that would fit a cache counts at that cache's speed, wherever it really is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.graph.entry import Role
from edgekit.graph.value import DType
from edgekit.program import Program
from edgekit.program.inspect import phase
from edgekit.sessions.data import port_name
from edgekit.sessions.memory import Memory
from edgekit.telemetry import Record, Summary


@dataclass(frozen=True)
class Limits:
    """What a board can do: ``flops`` a second; pairs of (bytes of the data, bytes a second), the smallest data first."""

    flops: int
    bandwidth: tuple[tuple[int, int], ...]

    def bytes_a_second(self, nbytes: int) -> int:
        """With so much data: at the speed of the next larger size that was measured."""
        return next((speed for size, speed in self.bandwidth if size >= nbytes), self.bandwidth[-1][1])

    def seconds(self, flops: int, nbytes: int) -> tuple[float, str]:
        """The least time that work can take, and what limits it: "compute" or "memory"."""
        compute, memory = flops / self.flops, nbytes / self.bytes_a_second(nbytes)
        return (compute, "compute") if compute >= memory else (memory, "memory")


@dataclass(frozen=True)
class OpTime:
    """Time of one op, ns a run: its ``number`` in the program, the user's ``module``; forward, backward or update."""

    number: int
    name: str
    module: str
    phase: str
    runs: int
    ns: float
    share: float  #: of all ops' time
    flops: int
    nbytes: int  #: of its operands and results
    limit_ns: float  #: the least that it can take on this board
    limited_by: str  #: "compute" or "memory"

    @property
    def efficiency(self) -> float:
        """The part of the limit that it reached."""
        return self.limit_ns / self.ns if self.ns else 0.0


@dataclass(frozen=True)
class Bench:
    """``step_ns`` without the first step; ``ops`` and ``limits`` are None where they were not asked for."""

    step_ns: tuple[int, ...]
    summary: Summary
    memory: Memory
    ops: tuple[OpTime, ...] | None
    limits: Limits | None
    efficiency: float | None  #: the part of the limit that a whole step reached: its ops' least time over the time they took


def random_data(program: Program, seed: int = 0) -> dict[str, Any]:
    """One step's worth of made-up data that fits ``train_step``: numbers in 0 … 1, targets in range."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for port in program.entries["train_step"].ports:
        if port.role not in (Role.INPUT, Role.TARGET):
            continue
        wanted = program.tensors[port.tensor].type
        shape = (wanted.shape[0] * program.header.accumulate, *wanted.shape[1:])
        if wanted.dtype is DType.I32:
            arrays[port_name(port)] = rng.integers(port.low, max(port.high, port.low + 1), shape, dtype=np.int64)
        elif wanted.dtype is DType.I8:
            arrays[port_name(port)] = rng.integers(-128, 128, shape, dtype=np.int8)
        else:
            arrays[port_name(port)] = rng.random(shape, dtype=np.float32)
    return arrays


def make_bench(
    program: Program,
    records: Sequence[Record],
    summary: Summary,
    memory: Memory,
    profile: Sequence[tuple[int, int, int]] = (),
    limits: Limits | None = None,
) -> Bench:
    """Put together what the board sent; ``profile`` has rows of (op number, runs, ns of all runs)."""
    ops = None if limits is None else _op_times(program, profile, limits)
    return Bench(
        step_ns=tuple(r.step_ns for r in (records[1:] or records)),
        summary=summary,
        memory=memory,
        ops=ops,
        limits=limits,
        efficiency=None if ops is None else efficiency(ops),
    )


def efficiency(ops: Sequence[OpTime]) -> float:
    """The part of their limits that ops reached together."""
    return sum(op.runs * op.limit_ns for op in ops) / (sum(op.runs * op.ns for op in ops) or 1)


def _op_times(program: Program, profile: Sequence[tuple[int, int, int]], limits: Limits) -> tuple[OpTime, ...]:
    total = sum(ns for _, _, ns in profile) or 1
    flops = program.metadata.get("flops", [0] * len(program.ops))
    times = []
    for number, runs, ns in profile:
        if not runs:
            continue
        record = program.ops[number]
        nbytes = sum(program.tensors[t].type.nbytes for t in (*record.inputs, *record.outputs) if t is not None)
        seconds, limited_by = limits.seconds(flops[number], nbytes)
        times.append(
            OpTime(
                number=number,
                name=record.op.name,
                module=record.origin.module,
                phase=phase(program, number),
                runs=runs,
                ns=ns / runs,
                share=ns / total,
                flops=flops[number],
                nbytes=nbytes,
                limit_ns=seconds * 1e9,
                limited_by=limited_by,
            )
        )
    return tuple(sorted(times, key=lambda t: t.share, reverse=True))
