"""A data set cut into shards in the order of its use, for boards that cannot hold all of it (docs/protocol.md, "Shards")."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import DataError, InputError
from edgekit.files import npy_bytes
from edgekit.program import Program
from edgekit.protocol.messages import Window
from edgekit.sessions.data import CheckedData

MAGIC = b"EKSHARD1"
MOST_ARRAYS = 16
_HEAD = struct.Struct("<8sQ32sII16Q8x")
_ALIGNED = 64
_NPY_BYTES = 256  #: more than an array's .npy header and the gap before the next one take
_CHUNK = 1 << 24  #: bytes hashed in one go

SPOOL = 64 << 20  #: bytes of shards on a board, where nobody says
_SHARD = 8 << 20  #: … of one shard: the board verifies it between two ops
_AHEAD, _USUAL_AHEAD, _LEAST_AHEAD = 16, 8, 2  #: shards on the board, the one in use among them
_MOST_STEPS = 1 << 20

_MASK, _GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Spool:
    """How a data set is cut: steps of a shard, shards on the board at a time, and the bytes that they take at most."""

    steps: int
    ahead: int
    bytes: int


class Shards:
    """A checked data set as the shards that an entry of a program uses."""

    def __init__(self, data: CheckedData, program: Program, entry: str) -> None:
        self._arrays = dict(data.arrays)
        self.samples = len(next(iter(self._arrays.values())))
        self.per_step = program.header.batch * (program.header.accumulate if entry == "train_step" else 1)
        self._epoch = self.samples // self.per_step * self.per_step if entry == "train_step" else self.samples
        self.sample_bytes = sum(array.nbytes // len(array) for array in self._arrays.values())

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of names, types, shapes and values."""
        hash_ = hashlib.sha256()
        for name, array in sorted(self._arrays.items()):
            hash_.update(f"{name} {array.dtype.newbyteorder('<').str} {array.shape}\n".encode())
            rows = max(1, _CHUNK // max(1, array.nbytes // len(array)))
            for start in range(0, len(array), rows):
                part = np.ascontiguousarray(array[start : start + rows])
                hash_.update(part.astype(array.dtype.newbyteorder("<"), copy=False).data)
        return hash_.digest()

    @property
    def least(self) -> int:
        """Bytes of the smallest spool: two shards of one step."""
        return _LEAST_AHEAD * self._bytes(1)

    def spool(self, most: int) -> Spool:
        """Cut it so that no more than ``most`` bytes of shards are on the board at a time.

        Raises:
            InputError: not even two shards of one step fit.
        """
        if most < self.least:
            raise InputError(
                f"a spool of {most} bytes does not hold two shards of one step",
                f"give it at least {self.least} bytes, or compile with a smaller --batch",
            )
        wanted = min(_SHARD, most // _USUAL_AHEAD) - self._bytes(0)
        steps = min(max(1, wanted // (self._bytes(1) - self._bytes(0))), _MOST_STEPS)
        ahead = min(_AHEAD, most // self._bytes(steps))
        return Spool(steps, ahead, ahead * self._bytes(steps))

    def check(self, window: Window) -> None:
        """Raise DataError where the board's session began with another data set."""
        if window.digest != self.digest or window.samples != self.samples:
            raise another(window.digest, self.digest)

    def build(self, window: Window, number: int) -> bytes:
        """The file of a shard."""
        begin = number * window.steps * self.per_step
        rows = self._rows(begin, min(begin + window.steps * self.per_step, window.limit), window)
        parts = [npy_bytes(array[rows]) for array in self._arrays.values()]
        sizes = [len(part) for part in parts] + [0] * (MOST_ARRAYS - len(parts))
        head = _HEAD.pack(MAGIC, number, self.digest, len(rows), len(parts), *sizes)
        padded = (part + bytes(-len(part) % _ALIGNED) for part in parts[:-1])
        return b"".join((head, *padded, parts[-1]))

    def _bytes(self, steps: int) -> int:
        """At most of a shard's file."""
        return _HEAD.size + _NPY_BYTES * len(self._arrays) + steps * self.per_step * self.sample_bytes

    def _rows(self, begin: int, end: int, window: Window) -> npt.NDArray[np.int64]:
        """Which samples are used as the numbers ``begin`` … ``end`` - 1 of the session."""
        used = np.arange(begin, end)
        if not window.shuffle:
            return np.asarray(used % self._epoch)
        epochs = range(begin // self._epoch, (end - 1) // self._epoch + 1)
        first = epochs.start * self._epoch
        orders = np.concatenate([epoch_order(self.samples, window.seed, epoch)[: self._epoch] for epoch in epochs])
        return np.asarray(orders[used - first])


def another(found: bytes, given: bytes) -> DataError:
    """The error of a data set that is not the session's."""
    return DataError(
        f"this is another data set than the session began with: its digest is {given.hex()[:16]}…, not {found.hex()[:16]}…",
        "give the session's own --data, or start a new one with `edgekit train`",
    )


@lru_cache(maxsize=2)
def epoch_order(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The samples' order in an epoch, as the runner shuffles them (docs/program-format.md, "Randomness")."""
    start = int(_mix(np.uint64(((seed << 32 | epoch) + _GOLDEN) & _MASK)))
    count = np.arange(samples - 1, 0, -1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        keys = np.uint64(start) + np.uint64(_GOLDEN) * np.arange(1, samples, dtype=np.uint64)
        chosen = (_mix(keys) >> np.uint64(32)) * (count + np.uint64(1)) >> np.uint64(32)
    order = list(range(samples))
    for i, j in zip(range(samples - 1, 0, -1), chosen.tolist(), strict=True):
        order[i], order[j] = order[j], order[i]
    return np.array(order)


def _mix(z: Any) -> Any:
    with np.errstate(over="ignore"):
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return z ^ z >> np.uint64(31)
