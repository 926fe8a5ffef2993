"""The records of the Program file (docs/program-format.md) and its numbers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"\x89EKP\r\n\x1a\n"
VERSION = 1
ALIGN = 64
ABSENT = 0xFFFF
MAX_INPUTS = 8
MAX_OUTPUTS = 4

HEADER = struct.Struct("<8sIIQ32s6I8Q2I40s")
TENSOR = struct.Struct("<BBBBI6IQQ")
OP = struct.Struct("<HH8H4H52s")
ENTRY = struct.Struct("<6IQ")
PORT = struct.Struct("<HHHHiiiI")

DIGEST_AT = 24  #: where the SHA-256 lies
DIGEST_FROM = 56  #: it covers the file from here to its end


class Architecture(IntEnum):
    """Processor family that a Program is for."""

    ANY = 0
    X86_64 = 1
    AARCH64 = 2
    ARMV7EM = 3


class Backend(IntEnum):
    """Set of kernels that a Program is for."""

    CPU = 1
    CORTEX_M = 2
    TORCH = 3


class Storage(IntEnum):
    """Where a tensor lives."""

    ARENA = 1
    CONSTANT = 2
    STATE = 3


class EntryKind(IntEnum):
    """The entry points; their names in Python are these in lower case."""

    TRAIN_STEP = 1
    UPDATE = 2
    EVALUATE = 3
    PREDICT = 4
    PREFIX = 5  #: the part of train_step that is the same in every epoch: from samples to the boundary
    SUFFIX = 6  #: the rest of train_step, from the boundary on


@dataclass(frozen=True)
class Header:
    """The header's fields, without magic, digest and zeros; sizes and offsets in bytes."""

    version: int
    file_bytes: int
    architecture: int
    backend: int
    tensors: int
    ops: int
    entries: int
    ports: int
    arena_bytes: int
    state_bytes: int
    constants_offset: int
    constants_bytes: int
    state_init_offset: int
    state_init_bytes: int
    metadata_offset: int
    metadata_bytes: int
    accumulate: int
    batch: int


def align(n: int) -> int:
    """The next multiple of ALIGN."""
    return -(-n // ALIGN) * ALIGN
