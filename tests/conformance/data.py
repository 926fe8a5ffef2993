"""Operands with contents drawn from a seed."""

from __future__ import annotations

import numpy as np

from edgekit.graph.op import Array
from edgekit.program import Storage
from tests.conformance.case import Operand


class Data:
    """Draws operands; every call draws new numbers."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def array(self, shape: tuple[int, ...], scale: float = 1.0) -> Array:
        """float32, standard normal times ``scale``."""
        return np.asarray(self._rng.standard_normal(shape) * scale, np.float32)

    def floats(self, shape: tuple[int, ...], scale: float = 1.0, storage: Storage = Storage.ARENA) -> Operand:
        return Operand(self.array(shape, scale), storage)

    def positive(self, shape: tuple[int, ...]) -> Operand:
        return Operand(np.asarray(np.abs(self.array(shape, 3.0)) + np.float32(0.05), np.float32))

    def whole(self, shape: tuple[int, ...]) -> Operand:
        """Small whole numbers: many are equal."""
        return Operand(np.round(self.array(shape, 2.0)).astype(np.float32))

    def bits(self, shape: tuple[int, ...], storage: Storage = Storage.ARENA) -> Operand:
        return Operand(np.asarray(self._rng.random(shape) < 0.5), storage)

    def classes(self, shape: tuple[int, ...], count: int, ignore: int | None = None) -> Operand:
        """Class numbers; about a third is ``ignore``, but never all."""
        chosen = np.asarray(self._rng.integers(0, count, shape), np.int32)
        if ignore is not None and chosen.size > 1:
            left_out = self._rng.random(shape) < 0.3
            left_out.flat[0] = False
            chosen[left_out] = ignore
            chosen.flat[0] = next(i for i in range(count) if i != ignore)
        return Operand(chosen)

    def u8(self, shape: tuple[int, ...]) -> Operand:
        return Operand(np.asarray(self._rng.integers(0, 256, shape), np.uint8))

    def i8(self, shape: tuple[int, ...], storage: Storage = Storage.ARENA) -> Operand:
        return Operand(np.asarray(self._rng.integers(-128, 128, shape), np.int8), storage)

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Operand:
        return Operand(np.asarray(self._rng.integers(low, high, shape), np.int32))


def scalar(value: float) -> Operand:
    return Operand(np.array(value, np.float32))
