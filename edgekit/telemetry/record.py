"""What the board says of one training step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)  # a long session has millions
class Record:
    """One update of the parameters. None is unknown.

    Attributes:
        step: updates done, from 1.
        epoch: from 0.
        loss: mean over the step's samples; NaN where training left the numbers.
        step_ns: the whole step; load_ns, compute_ns and update_ns are its parts: reading data, forward and backward, optimizer.
        time_ns: the board's monotonic clock at the step's end.
        temperature_c: °C.
        clock_khz: CPU clock.
        throttled: the board's own flag word, 0 while nothing throttles.
        power_w: W.
        rss_bytes: high-water mark of the runner's resident memory.
        arena_bytes: the most that activations and gradients took in the step; the compiler knows it, not the board.
    """

    step: int
    epoch: int
    loss: float
    step_ns: int
    load_ns: int
    compute_ns: int
    update_ns: int
    time_ns: int
    temperature_c: float | None = None
    clock_khz: int | None = None
    throttled: int | None = None
    power_w: float | None = None
    rss_bytes: int | None = None
    arena_bytes: int | None = None

    @classmethod
    def from_wire(cls, row: Sequence[Any], arena_bytes: int | None = None) -> Record:
        """From the runner's array (docs/protocol.md), whose first number is the cursor; m°C and µW become °C and W.

        Raises:
            ValueError: the array is too short.
        """
        if len(row) < 14:
            raise ValueError(f"a record of {len(row)} numbers, 14 expected")
        step, epoch, loss, step_ns, load_ns, compute_ns, update_ns, time_ns, temperature, clock, throttled, power, rss = row[1:14]
        return cls(
            step=step,
            epoch=epoch,
            loss=math.nan if loss is None else loss,
            step_ns=step_ns,
            load_ns=load_ns,
            compute_ns=compute_ns,
            update_ns=update_ns,
            time_ns=time_ns,
            temperature_c=None if temperature is None else temperature / 1e3,
            clock_khz=clock,
            throttled=throttled,
            power_w=None if power is None else power / 1e6,
            rss_bytes=rss,
            arena_bytes=arena_bytes,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: NaN and infinity, which JSON lacks, become null."""
        return {**asdict(self), "loss": self.loss if math.isfinite(self.loss) else None}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Record:
        """The record that ``to_json`` made ``table`` from.

        Raises:
            TypeError: a key is missing or unknown.
        """
        return cls(**{**table, "loss": math.nan if table.get("loss") is None else table["loss"]})
