"""Numbers that describe a run: percentiles of its step times, its losses, its extremes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edgekit.telemetry.record import Record

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """Times in ms. The first step is left out of the times where there are more: it warms the caches.

    None is unknown.
    """

    steps: int
    first_loss: float | None
    last_loss: float | None
    median_ms: float | None
    p10_ms: float | None
    p90_ms: float | None
    load_ms: float | None
    compute_ms: float | None
    update_ms: float | None
    peak_rss_bytes: int | None
    max_temperature_c: float | None
    mean_power_w: float | None


def summarize(records: Sequence[Record]) -> Summary:
    """Describe the steps of a run; medians for the parts of a step."""
    timed = records[1:] or records
    last = records[-1] if records else None

    def ms(attribute: str, percent: float = 50) -> float | None:
        return float(np.percentile([getattr(r, attribute) for r in timed], percent)) / 1e6 if timed else None

    power = _known(r.power_w for r in records)
    return Summary(
        steps=len(records),
        first_loss=records[0].loss if records else None,
        last_loss=last.loss if last else None,
        median_ms=ms("step_ns"),
        p10_ms=ms("step_ns", 10),
        p90_ms=ms("step_ns", 90),
        load_ms=ms("load_ns"),
        compute_ms=ms("compute_ns"),
        update_ms=ms("update_ns"),
        peak_rss_bytes=max(_known(r.rss_bytes for r in records), default=None),
        max_temperature_c=max(_known(r.temperature_c for r in records), default=None),
        mean_power_w=sum(power) / len(power) if power else None,
    )


def _known(values: Iterable[T | None]) -> list[T]:
    return [v for v in values if v is not None]
