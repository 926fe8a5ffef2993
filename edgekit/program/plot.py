"""The memory timeline as a picture."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgekit.files import write_atomic
from edgekit.program.inspect import inspect, size
from edgekit.program.memory import PURPOSES
from edgekit.program.program import Program

_COLORS = dict(zip(PURPOSES, ("#7f7f7f", "#1f77b4", "#17becf", "#aec7e8", "#9467bd", "#ff7f0e", "#d62728"), strict=True))

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def draw(program: Program, path: str | os.PathLike[str], entry: str) -> None:
    """Bytes in use over the ops of ``entry``, stacked by purpose, with the planned arena and the liveness lower bound.

    Raises:
        StorageError: the file cannot be written.
    """
    report = inspect(program)
    shown = next(e for e in report.entries if e.name == entry)
    line = shown.timeline
    unit, name = next(((u, n) for u, n in _UNITS if shown.arena_bytes >= u), (1.0, "bytes"))
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.add_subplot()
    edges = range(len(line.total) + 1)  # op i takes the span from i to i + 1
    bottom = [0.0] * len(line.total)
    for purpose, sizes in line.by_purpose.items():
        top = [b + s / unit for b, s in zip(bottom, sizes, strict=True)]
        label = f"{purpose}, {size(shown.peak.get(purpose, 0))}"
        axes.stairs(top, edges, baseline=bottom, fill=True, color=_COLORS[purpose], label=label)
        bottom = top
    axes.axhline(shown.arena_bytes / unit, color="black", linewidth=1.2, label=f"planned arena, {size(shown.arena_bytes)}")
    bound = f"liveness lower bound, {size(shown.lower_bound)}"
    axes.axhline(shown.lower_bound / unit, color="black", linewidth=1, linestyle=(0, (4, 3)), label=bound)
    _mark_backward(axes, line.phases)
    axes.set(xlim=(0, len(line.total)), ylim=(0, 1.12 * max(shown.arena_bytes, 1) / unit))
    axes.set(xlabel="operator, in order of execution", ylabel=f"memory in use ({name})")
    axes.set_title(f"{report.model or 'program'}: arena of {entry}, batch {report.batch}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="in use at the peak", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomic(Path(path), picture.getvalue())


def _mark_backward(axes: Axes, phases: tuple[str, ...]) -> None:
    """A line where backward begins."""
    at = next((i for i, phase in enumerate(phases) if phase != "forward"), None)
    if at:
        axes.axvline(at, color="#555555", linewidth=0.8, linestyle=":")
        style: dict[str, Any] = {"fontsize": 9, "color": "#555555", "va": "top", "transform": axes.get_xaxis_transform()}
        axes.text(at, 0.99, "forward ", ha="right", **style)
        axes.text(at, 0.99, " backward", ha="left", **style)
