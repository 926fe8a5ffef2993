"""A Program as Python sees it: the file's bytes and its decoded tables."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.files import storage_errors, write_atomic
from edgekit.graph.entry import Role
from edgekit.graph.graph import Origin
from edgekit.graph.op import Array, Op
from edgekit.graph.value import Type
from edgekit.program.arrays import decode
from edgekit.program.format import DIGEST_AT, EntryKind, Header, Storage

if TYPE_CHECKING:
    from edgekit.program.inspect import Report


@dataclass(frozen=True)
class Tensor:
    """One array: its type, and where it lies in its storage's region (bytes)."""

    name: str
    type: Type
    storage: Storage
    offset: int


@dataclass(frozen=True)
class OpRecord:
    """One operator with tensor numbers as operands and results (None: absent)."""

    op: Op
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    origin: Origin


@dataclass(frozen=True)
class PortRecord:
    """A tensor that the runner fills or reads."""

    role: Role
    index: int
    tensor: int
    low: int
    high: int
    ignore: int


@dataclass(frozen=True)
class EntryRecord:
    """An entry point: the ops that it runs, its ports, the bytes of arena that it uses."""

    kind: EntryKind
    first_op: int
    ops: tuple[OpRecord, ...]
    ports: tuple[PortRecord, ...]
    arena_bytes: int


@dataclass(frozen=True)
class Program:
    """A verified Program file. Make one with ``from_bytes`` or ``load``."""

    data: bytes = field(repr=False)
    header: Header
    tensors: tuple[Tensor, ...] = field(repr=False)
    ops: tuple[OpRecord, ...] = field(repr=False)
    entries: Mapping[str, EntryRecord] = field(repr=False)  #: by name: train_step, update, evaluate, predict
    metadata: Mapping[str, Any] = field(repr=False)
    #: of the compilation that made it, by stage; not in the file: the same model gives the same bytes, which a board stores once
    seconds: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_bytes(cls, data: bytes, origin: str = "the program") -> Program:
        """Verify and decode.

        Raises:
            IntegrityError: the bytes are no Program, damaged, or of another version; the message starts with ``origin``.
        """
        from edgekit.program.reader import read_program  # which builds on this module

        return read_program(data, origin)

    @property
    def sha256(self) -> bytes:
        """The program's identity: the digest in its header."""
        return self.data[DIGEST_AT : DIGEST_AT + 32]

    def tensor(self, name: str) -> Tensor:
        """The state of this name (state names are unique), else the first tensor of this name.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]

    @functools.cached_property
    def _by_name(self) -> dict[str, Tensor]:
        ranked = sorted(self.tensors, key=lambda t: t.storage is not Storage.STATE)
        return {t.name: t for t in reversed(ranked)}

    @property
    def states(self) -> tuple[Tensor, ...]:
        """What the board changes and keeps, views left out."""
        return tuple({t.offset: t for t in reversed(self.tensors) if t.storage is Storage.STATE}.values())

    def array(self, tensor: Tensor) -> Array:
        """The contents of a constant, or the first contents of a state."""
        if tensor.storage is Storage.CONSTANT:
            at = self.header.constants_offset + tensor.offset
        elif tensor.storage is Storage.STATE and tensor.offset < self.header.state_init_bytes:
            at = self.header.state_init_offset + tensor.offset
        elif tensor.storage is Storage.STATE:
            return np.zeros(tensor.type.shape, np.float32)
        else:
            raise ValueError(f"{tensor.name} lies in the arena")
        return decode(memoryview(self.data)[at : at + tensor.type.nbytes], tensor.type)

    def state_init(self, name: str) -> Array:
        """The first contents of the state ``name``."""
        return self.array(self.tensor(name))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all.

        Raises:
            StorageError: the file cannot be written (no such folder, no permission, disk full).
        """
        write_atomic(Path(path), self.data)

    def updated_parameters(self) -> list[str]:
        """The model's parameter names that the board trains, whole or in part."""
        return [name for binding in self.metadata.get("bindings", []) for name in binding["parameters"]]

    def report(self) -> Report:
        """What the Program holds and costs, in numbers."""
        from edgekit.program.inspect import inspect  # which builds on this module

        return inspect(self)

    def summary(self) -> str:
        """What the Program holds and costs, for people."""
        return self.report().text()


def load(path: str | os.PathLike[str]) -> Program:
    """Read a Program file.

    Raises:
        InputError: the file cannot be read.
        IntegrityError: it is no Program, cut, changed, or of another version.
    """
    with storage_errors(f"cannot read {os.fspath(path)}"):
        data = Path(path).read_bytes()
    return Program.from_bytes(data, str(path))
