"""Arrays as the bytes of the Program file, and back. BITS arrays are boolean arrays of the logical shape here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgekit.graph.op import Array
from edgekit.graph.value import DType, Type

_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype("<f4"),
    DType.I32: np.dtype("<i4"),
    DType.U8: np.dtype("u1"),
    DType.I8: np.dtype("i1"),
}


def encode(array: Array, type_: Type) -> bytes:
    """The bytes of ``array`` as a value of ``type_``: cast, row-major, little-endian."""
    if np.shape(array) != type_.shape:
        raise ValueError(f"an array of shape {np.shape(array)} is no {type_}")
    if type_.dtype is not DType.BITS:
        return np.ascontiguousarray(array, _NUMPY[type_.dtype]).tobytes()
    rows = np.reshape(array, (-1, type_.shape[-1] if type_.shape else 1))
    return np.packbits(rows.astype(bool), axis=1, bitorder="little").tobytes()


def decode(data: bytes | memoryview, type_: Type) -> Array:
    """The array that ``encode`` made ``data`` from; a copy."""
    if type_.dtype is not DType.BITS:
        return np.frombuffer(data, _NUMPY[type_.dtype]).reshape(type_.shape).copy()
    width = type_.shape[-1] if type_.shape else 1
    packed = np.frombuffer(data, np.uint8).reshape(math.prod(type_.shape[:-1]), -1)
    return np.unpackbits(packed, axis=1, count=width, bitorder="little").astype(bool).reshape(type_.shape)
