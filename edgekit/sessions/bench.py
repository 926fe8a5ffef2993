"""What a benchmark on a board tells: step times, memory by purpose, and the time of each op."""

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
class OpTime:
    """Time of one op, ns a run: its ``number`` in the program, the user's ``module``; forward, backward or update."""

    number: int
    name: str
    module: str
    phase: str
    runs: int
    ns: float
    share: float  #: of all ops' time


@dataclass(frozen=True)
class Bench:
    """``step_ns`` without the first step; ``ops`` is None where it was not asked for."""

    step_ns: tuple[int, ...]
    summary: Summary
    memory: Memory
    ops: tuple[OpTime, ...] | None


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
        else:
            arrays[port_name(port)] = rng.random(shape, dtype=np.float32)
    return arrays


def make_bench(
    program: Program, records: Sequence[Record], summary: Summary, memory: Memory, profile: Sequence[tuple[int, int, int]] | None
) -> Bench:
    """Put together what the board sent; ``profile`` has rows of (op number, runs, ns of all runs)."""
    return Bench(
        step_ns=tuple(r.step_ns for r in (records[1:] or records)),
        summary=summary,
        memory=memory,
        ops=None if profile is None else _op_times(program, profile),
    )


def _op_times(program: Program, profile: Sequence[tuple[int, int, int]]) -> tuple[OpTime, ...]:
    total = sum(ns for _, _, ns in profile) or 1
    times = [
        OpTime(number, record.op.name, record.origin.module, phase(program, number), runs, ns / runs, ns / total)
        for number, runs, ns in profile
        if runs
        for record in (program.ops[number],)
    ]
    return tuple(sorted(times, key=lambda t: t.share, reverse=True))
