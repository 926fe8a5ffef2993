"""An op's attributes as the 32-bit words of a Program record, and back."""

from __future__ import annotations

import dataclasses
import functools
import struct
import typing
from enum import IntEnum
from typing import Any

from edgekit.graph.op import Op
from edgekit.graph.ops import OPS

WORDS = 13  #: attribute words in an op record


@dataclasses.dataclass(frozen=True)
class Field:
    """One attribute: its scalar type (int, bool, float or an IntEnum) and the words it takes."""

    name: str
    kind: type
    words: int

    @property
    def code(self) -> str:
        """Its ``struct`` format."""
        return f"{self.words}{'f' if self.kind is float else 'i'}"


def fields_of(cls: type[Op]) -> tuple[Field, ...]:
    """The attributes of an op class, in the order of their words."""
    return _fields(cls.code)


@functools.cache
def _fields(code: int) -> tuple[Field, ...]:
    cls = OPS[code]
    hints = typing.get_type_hints(cls)
    found = []
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        parts = typing.get_args(hint)
        found.append(Field(f.name, parts[0] if parts else hint, len(parts) or 1))
    return tuple(found)


def pack(op: Op) -> bytes:
    """The attribute bytes of ``op``: ``WORDS`` words, zero past its own."""
    words = b""
    for f in fields_of(type(op)):
        value = getattr(op, f.name)
        words += struct.pack("<" + f.code, *(value if f.words > 1 else (value,)))
    return words.ljust(4 * WORDS, b"\0")


def unpack(cls: type[Op], words: bytes) -> Op:
    """The op that ``pack`` made ``words`` from.

    Raises:
        ValueError: an enumeration's number is unknown.
    """
    values: dict[str, Any] = {}
    at = 0
    for f in fields_of(cls):
        raw = struct.unpack_from("<" + f.code, words, at)
        at += struct.calcsize("<" + f.code)
        typed = tuple(f.kind(v) if issubclass(f.kind, (IntEnum, bool)) else v for v in raw)
        values[f.name] = typed if f.words > 1 else typed[0]
    return cls(**values)
