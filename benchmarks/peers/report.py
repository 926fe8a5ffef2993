"""The figures as a document, as tables and as a picture."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.peers.environments import PEERS
from benchmarks.peers.measure import Figures, Result
from benchmarks.peers.networks import FULL, SPARSE
from benchmarks.peers.targets import Verdict, fastest_peer, verdicts

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

MIB = 1 << 20
SPINNING = 0.05  #: cores that an idle peer may keep busy before it is told
COLOURS = {
    "edgekit": "#1b6ca8",
    "edgekit-cached": "#6fb1dd",
    "torch": "#c9702b",
    "torch-compile": "#e3a05f",
    "tensorflow": "#4f8f4f",
    "tflite": "#9cc79c",
    "onnxruntime": "#7a5ba6",
    "mnn": "#b0487a",
    "jax": "#8c8c8c",
}


def document(results: Sequence[Result], skipped: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    """All there is, for ``peers.json``: every timed step too."""
    return {
        "machine": _machine(),
        "settings": settings,
        "skipped": skipped,
        "results": [asdict(r) | {"medians_ms": {n: f.median_ms for n, f in r.figures.items()}} for r in results],
        "targets": [asdict(v) | {"word": v.word} for v in verdicts(results)],
    }


def line(result: Result) -> str:
    """One piece of work in a few words."""
    times = (f"{PEERS[name].title} {figures.median_ms:.3g}" for name, figures in result.figures.items())
    failed = (f"{PEERS[name].title} failed" for name in result.failed)
    return f"{result.work}: {', '.join((*times, *failed))} ms"


def show(console: Console, results: Sequence[Result], skipped: dict[str, str]) -> None:
    """Print tables of time, memory and targets, and what is missing from them."""
    peers = [name for name in PEERS if any(name in r.figures for r in results)]
    console.print(_times(results, peers))
    console.print(_memory(results, peers))
    console.print(_targets(verdicts(results)))
    for name, reason in skipped.items():
        console.print(f"skipped: {PEERS[name].title}: {reason}", markup=False)
    for result in results:
        for name, reason in result.failed.items():
            console.print(f"failed: {PEERS[name].title}, {result.work}: {reason}", markup=False)
        disturbed = (f"{PEERS[name].title} {f.disturbed} of {len(f.turns)}" for name, f in result.figures.items() if f.disturbed)
        spinning = (f"{PEERS[name].title} {f.idle_cores:.2f}" for name, f in result.figures.items() if f.idle_cores > SPINNING)
        for what, who in (("turns disturbed by other processes", disturbed), ("cores kept busy while idle", spinning)):
            if found := ", ".join(who):
                console.print(f"beware: {result.work}: {what}: {found}", markup=False)


def _times(results: Sequence[Result], peers: Sequence[str]) -> Table:
    made = _table("One training step: median ms ± half the span of the 10th to 90th percentile; * the fastest peer, ? disturbed")
    for heading in ("work", *(PEERS[name].title for name in peers), "edgekit vs. *"):
        made.add_column(heading, justify="left" if heading == "work" else "right")
    for result in results:
        best = fastest_peer(result.figures)
        cells = [_time(result.figures.get(name), name == best) for name in peers]
        ours = result.figures.get("edgekit")
        ratio = f"{result.figures[best].median_ms / ours.median_ms:.2f}x" if best and ours else "–"
        made.add_row(str(result.work), *cells, ratio)
    return made


def _time(figures: Figures | None, best: bool) -> str:
    if figures is None:
        return "–"
    low, high = figures.spread_ms
    text = f"{_digits(figures.median_ms)} ±{_digits((high - low) / 2, 2)}{'' if figures.comparable else '?'}"
    return f"[bold]{text}*[/]" if best else text


def _digits(number: float, digits: int = 3) -> str:
    """So many significant digits, but all before the point."""
    return f"{number:.{digits}g}" if number < 10**digits else f"{number:.0f}"


def _memory(results: Sequence[Result], peers: Sequence[str]) -> Table:
    made = _table("Peak memory of the process, MiB; in brackets what training adds to it with its parameters loaded")
    for heading in ("work", *(PEERS[name].title for name in peers)):
        made.add_column(heading, justify="left" if heading == "work" else "right")
    for result in results:
        found = [result.figures.get(name) for name in peers]
        cells = [f"{f.process_bytes / MIB:.0f} ({f.growth_bytes / MIB:.0f})" if f else "–" for f in found]
        made.add_row(str(result.work), *cells)
    return made


def _targets(rows: Sequence[Verdict]) -> Table:
    made = _table("Targets")
    for heading in ("ratio", "wanted", "measured", ""):
        made.add_column(heading, justify="left" if heading in ("ratio", "") else "right")
    for row in rows:
        colour = {"met": "green", "missed": "red"}.get(row.word, "dim")
        made.add_row(row.text, f"{row.wanted:g}x", "–" if row.ratio is None else f"{row.ratio:.2f}x", f"[{colour}]{row.word}[/]")
    return made


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1))


def plot(results: Sequence[Result], path: Path) -> None:
    """Step times of full and sparse updates and the processes' memory: a group of bars for each piece of work, log scale."""
    peers = [name for name in PEERS if any(name in r.figures for r in results)]
    full, sparse = ([r for r in results if r.work.update == update and r.figures] for update in (FULL, SPARSE))
    panels = [
        (full, "full update: ms a step (log scale; whiskers: 10th to 90th percentile; ? disturbed)", _median_ms),
        (sparse, f"{SPARSE} blocks and the classifier: ms a step", _median_ms),
        (full, "full update: peak memory of the process, MiB", _process_mib),
        (sparse, f"{SPARSE}: peak memory of the process, MiB", _process_mib),
    ]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return
    drawn, axes = plt.subplots(len(panels), 1, figsize=(14, 4.2 * len(panels)), layout="constrained", squeeze=False)
    for one, panel in zip(axes[:, 0], panels, strict=True):
        _bars(one, peers, *panel)
    axes[0, 0].legend(frameon=False, ncols=len(peers), loc="upper right", fontsize=8)
    drawn.savefig(path, dpi=120)
    plt.close(drawn)


def _median_ms(figures: Figures) -> float:
    return figures.median_ms


def _process_mib(figures: Figures) -> float:
    return figures.process_bytes / MIB


def _bars(axes: Axes, peers: Sequence[str], results: Sequence[Result], title: str, of: Callable[[Figures], float]) -> None:
    width = 0.86 / max(len(peers), 1)
    for number, name in enumerate(peers):
        shift = (number - (len(peers) - 1) / 2) * width
        found = [(i + shift, r.figures[name]) for i, r in enumerate(results) if name in r.figures]
        xs, heights = [x for x, _ in found], [of(f) for _, f in found]
        spans = np.array([(f.median_ms - f.spread_ms[0], f.spread_ms[1] - f.median_ms) for _, f in found]).T
        whiskers = spans if of is _median_ms else None
        style = {"elinewidth": 0.7, "ecolor": "#444444"}
        bars = axes.bar(xs, heights, width * 0.95, yerr=whiskers, error_kw=style, color=COLOURS[name], label=PEERS[name].title)
        doubts = ["" if f.comparable or of is not _median_ms else "?" for _, f in found]
        labels = [_digits(h) + doubt for h, doubt in zip(heights, doubts, strict=True)]
        axes.bar_label(bars, labels, fontsize=6.5, padding=3)
    axes.set_yscale("log")
    axes.margins(x=0.01, y=0.18)
    axes.set_xticks(range(len(results)), [f"{r.work.network}\n{r.work.batch}×{r.work.size}²" for r in results], fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    isa = [name for name in ("avx2", "avx512f", "avx512_vnni") if name in flags.split()]
    return {
        "cpu": names[0] if names else platform.processor(),
        "isa": isa,
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }
