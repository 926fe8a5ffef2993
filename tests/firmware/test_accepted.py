"""What the verifier accepts runs without touching a byte that is not its own: ops with random shapes and attributes, fenced and
under sanitizers."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import IntegrityError
from edgekit.graph.op import ShapeError
from edgekit.graph.value import Type
from edgekit.program import Storage, format
from edgekit.program.attributes import fields_of
from edgekit.protocol.status import Status
from tests.firmware.samples import SAMPLES, Sample, program_of, seal
from tests.firmware.tools import verify

#: Window attributes from common to absurd; most absurd ones do not fit and are refused.
_VALUES = (0, 1, 1, 2, 3, 4, 5, 7, 11, 40)


def _attribute(kind: type, old: object, rng: np.random.Generator) -> object:
    if kind is float:
        return float(rng.choice([0.0, 0.5, -1.0, 1e30]))
    if kind is int:
        return int(rng.choice(_VALUES)) if rng.random() < 0.5 else old
    members: list[Any] = [False, True] if kind is bool else list(kind)  # type: ignore[call-overload]
    return members[rng.integers(len(members))]


def _vary(sample: Sample, rng: np.random.Generator) -> Sample:
    """Change attributes and axes. All axes of one length change together, so that many variants still fit."""
    changes: dict[str, Any] = {}
    for field in fields_of(type(sample.op)):
        old = getattr(sample.op, field.name)
        if rng.random() < 0.25:
            if field.words > 1:
                changes[field.name] = tuple(_attribute(field.kind, o, rng) for o in old)
            else:
                changes[field.name] = _attribute(field.kind, old, rng)
    changing = rng.choice([0.0, 0.2, 0.6])
    lengths = {n: int(rng.integers(1, 40)) if rng.random() < changing else n for n in range(100)}
    operands = tuple(None if t is None else Type(tuple(lengths[n] for n in t.shape), t.dtype) for t in sample.operands)
    kept = tuple(
        None if name.endswith("?") and rng.random() < 0.1 else t for name, t in zip(sample.op.operands, operands, strict=False)
    )
    return Sample(dataclasses.replace(sample.op, **changes), kept, sample.results)


def _program(sample: Sample, rng: np.random.Generator) -> bytes | None:
    """The variant's Program if its op takes it. A window's dy gets other sizes until one fits."""
    for _ in range(20):
        try:
            return program_of(sample).data
        except IntegrityError:
            return None
        except (ShapeError, AssertionError, IndexError, ValueError):
            sample = _resize_dy(sample, rng)
    return None


def _resize_dy(sample: Sample, rng: np.random.Generator) -> Sample:
    size = tuple(int(n) for n in rng.integers(1, 12, 2))
    names = [name.rstrip("?") for name in sample.op.operands]
    return dataclasses.replace(
        sample,
        operands=tuple(
            Type((t.shape[0], *size, t.shape[3]), t.dtype)
            if name in ("dy", "index") and t is not None and len(t.shape) == 4
            else t
            for name, t in zip(names, sample.operands, strict=False)
        ),
    )


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_accepted_programs_run_clean(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tries = 60 if seed == 0 else 1000
    made = [(s.op.name, _program(_vary(s, rng), rng)) for s in SAMPLES for _ in range(tries)]
    programs = [(name, data) for name, data in made if data is not None]
    verdicts = verify([data for _, data in programs], tmp_path, "--run")
    ran = Counter(name for (name, _), verdict in zip(programs, verdicts, strict=True) if verdict.status is Status.OK)
    assert all(ran[s.op.name] >= 5 for s in SAMPLES), ran


def _overlapping(data: bytes, rng: np.random.Generator) -> bytes:
    """The Program with its arena tensors thrown together, a multiple of 64 bytes apart."""
    changed = bytearray(data)
    (tensors,), (arena,) = struct.unpack_from("<I", data, 64), struct.unpack_from("<Q", data, 80)
    for at in range(format.HEADER.size, format.HEADER.size + tensors * format.TENSOR.size, format.TENSOR.size):
        (size,) = struct.unpack_from("<Q", data, at + 40)
        if data[at + 2] == Storage.ARENA:
            room = (arena - size) // 64
            struct.pack_into("<Q", changed, at + 32, 64 * int(rng.integers(0, min(room, 2) + 1)))
    return seal(bytes(changed))


def test_tensors_that_overlap_spoil_numbers_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    programs = [_overlapping(program_of(s).data, rng) for s in SAMPLES for _ in range(10)]
    assert {v.status for v in verify(programs, tmp_path, "--run")} == {Status.OK}
