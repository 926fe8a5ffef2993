"""Reading a checkpoint file (`.ekc`, docs/protocol.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import InputError, IntegrityError
from edgekit.program import Program
from edgekit.program.arrays import decode

MAGIC = b"\x89EKC\r\n\x1a\n"
_HEADER = struct.Struct("<8sIIQ32s32sQQIIQ")
_DIGEST_FROM = 56
_STATE_AT = 128  #: the header's 120 bytes, rounded up to 64


@dataclass(frozen=True)
class Checkpoint:
    """A board's state at one step, and where in the data the training stood."""

    program: bytes  #: SHA-256 of the program that it belongs to
    step: int
    seed: int
    epoch: int
    batches: int  #: done in the epoch
    region: bytes = field(repr=False)

    def state(self, program: Program) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the state, by name.

        Raises:
            IntegrityError: the checkpoint is another program's.
        """
        self.check(program)
        view = memoryview(self.region)
        return {t.name: np.array(decode(view[t.offset : t.offset + t.type.nbytes], t.type)) for t in program.states}

    def check(self, program: Program, origin: str = "the checkpoint") -> None:
        """Raise IntegrityError if this is another program's checkpoint."""
        if self.program != program.sha256 or len(self.region) != program.header.state_bytes:
            raise IntegrityError(
                f"{origin} belongs to the program {self.program.hex()[:12]}…, not to {program.sha256.hex()[:12]}…",
                "use the program that it was trained with: it lies in the run's folder",
            )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        InputError: the file cannot be read.
        IntegrityError: it is no checkpoint, cut, changed, or of another version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if data[: len(MAGIC)] != MAGIC:
        raise IntegrityError(f"{path} is no checkpoint", "a checkpoint ends in .ekc")
    if len(data) < _STATE_AT:
        raise IntegrityError(f"{path} was cut off after {len(data)} bytes", "copy it again")
    _, version, _, size, digest, program, step, seed, epoch, batches, state_bytes = _HEADER.unpack_from(data)
    if version != 1:
        raise IntegrityError(f"{path} has version {version}, this edgekit reads 1", "update edgekit")
    if size != len(data) or _STATE_AT + state_bytes > size:
        raise IntegrityError(f"{path} has {len(data)} bytes, its header says {size}", "it was cut off: copy it again")
    if hashlib.sha256(data[_DIGEST_FROM:]).digest() != digest:
        raise IntegrityError(f"{path} was changed: its checksum does not fit", "copy it again")
    return Checkpoint(program, step, seed, epoch, batches, data[_STATE_AT : _STATE_AT + state_bytes])
