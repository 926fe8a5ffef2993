"""Values: the edges of the graph. A value is a dense, row-major array whose shape is known at compile time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

MAX_RANK = 6


class DType(IntEnum):
    """Element types; the numbers are those of the Program file."""

    F32 = 1
    I32 = 2
    U8 = 3
    BITS = 4  #: one bit an element; every row (last axis) starts on a byte, bit i of a row is byte i//8, bit i%8
    I8 = 5

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes that an array of this type and ``shape`` takes."""
        if self is DType.BITS:
            rows = math.prod(shape[:-1])
            return rows * ((shape[-1] + 7) // 8) if shape else 1
        return math.prod(shape) * (1 if self in (DType.U8, DType.I8) else 4)


@dataclass(frozen=True)
class Type:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: DType = DType.F32

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.dtype.nbytes(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name.lower()}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False)
class Value:
    """One array of the graph; compared by identity. ``name`` is for people and for the Program's listing."""

    name: str
    type: Type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def nbytes(self) -> int:
        return self.type.nbytes

    def __repr__(self) -> str:
        return f"%{self.name}:{self.type}"
