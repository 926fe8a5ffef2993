"""The demonstration's table, and its plot as PNG and as a page that works offline."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from dataclasses import dataclass
from pathlib import Path
from string import Template

import matplotlib
from rich.box import SIMPLE
from rich.table import Table

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

MIB = 1 << 20
OURS, THEIRS = "#1b6ca8", "#c9702b"


@dataclass(frozen=True)
class Row:
    """One update scheme: what it reached, and what it cost on the board and in PyTorch."""

    scheme: str
    before: float
    after: float
    losses: list[float]
    step_ms: float
    memory_bytes: int  #: activations, gradients, optimizer state and working memory
    process_bytes: int  #: the runner's peak resident set
    updated_bytes: int
    parameters: list[str]
    pytorch_ms: float = 0.0
    pytorch_bytes: int = 0  #: growth of PyTorch's resident set over the loaded model
    pytorch_process_bytes: int = 0

    def beside_pytorch(self, ms: float, growth: int, process: int) -> Row:
        return dataclasses.replace(self, pytorch_ms=ms, pytorch_bytes=growth, pytorch_process_bytes=process)

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of ``HEADINGS``."""
        return (
            self.scheme,
            f"{self.before:.1%}",
            f"{self.after:.1%}",
            f"{self.updated_bytes / 1024:.0f}",
            f"{self.step_ms:.2f}",
            f"{self.pytorch_ms:.2f}",
            f"{self.pytorch_ms / self.step_ms:.1f}x",
            f"{self.memory_bytes / MIB:.1f}",
            f"{self.pytorch_bytes / MIB:.1f}",
        )


HEADINGS = ("update", "before", "after", "KiB", "ms/step", "PyTorch", "ratio", "MiB", "PyTorch")
LEGEND = (
    "before, after: accuracy in the shifted world. KiB: parameters that change. MiB: what training needs "
    "beyond the parameters (edgekit: all that the runner allocates; PyTorch, eager and channels-last: "
    "growth of its process)."
)


def legend(rows: list[Row]) -> str:
    """What the columns mean, and how large the processes were."""
    ours, theirs = max(r.process_bytes for r in rows) / MIB, max(r.pytorch_process_bytes for r in rows) / MIB
    return f"{LEGEND} Largest process: the runner {ours:.0f} MiB, PyTorch {theirs:.0f} MiB."


def table(rows: list[Row], clean: float) -> Table:
    """The rows for a terminal."""
    title = f"Digits on a shifted board (in the clean world the model gets {clean:.1%})"
    made = Table(title=title, caption=legend(rows), caption_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for i, heading in enumerate(HEADINGS):
        made.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row.cells())
    return made


def _smooth(losses: list[float], window: int = 25) -> list[float]:
    return [sum(part) / len(part) for i in range(len(losses)) if (part := losses[max(0, i - window + 1) : i + 1])]


def _bars(axes: plt.Axes, rows: list[Row], ours: list[float], theirs: list[float], title: str) -> None:
    places = range(len(rows))
    for values, shift, colour, label in ((ours, -0.2, OURS, "edgekit"), (theirs, 0.2, THEIRS, "PyTorch")):
        bars = axes.bar([p + shift for p in places], values, 0.4, color=colour, label=label)
        axes.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.2)
    axes.set_xticks(list(places), [r.scheme for r in rows])
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def figure(rows: list[Row], clean: float) -> plt.Figure:
    """Accuracy, loss, time and memory of the schemes."""
    made, ((accuracy, loss), (time, memory)) = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    names = [r.scheme for r in rows]
    accuracy.axhline(100 * clean, color="grey", linestyle=":", label="clean world, before the shift")
    accuracy.axhline(100 * rows[0].before, color="black", linestyle="--", label="shifted world, untrained")
    accuracy.bar_label(accuracy.bar(names, [100 * r.after for r in rows], color=OURS), fmt="%.1f", fontsize=8)
    accuracy.set_ylim(0, 115)
    accuracy.set_title("Accuracy after training on the board, %", fontsize=10)
    accuracy.legend(frameon=False, fontsize=8, loc="upper left")
    for row in rows:
        loss.plot(_smooth(row.losses), label=row.scheme)
    loss.set_yscale("log")
    loss.set_title("Loss by step (mean of 25)", fontsize=10)
    loss.legend(frameon=False, fontsize=8)
    _bars(time, rows, [r.step_ms for r in rows], [r.pytorch_ms for r in rows], "Time of a step, ms (log scale)")
    ours, theirs = [r.memory_bytes / MIB for r in rows], [r.pytorch_bytes / MIB for r in rows]
    _bars(memory, rows, ours, theirs, "Training memory beyond the parameters, MiB (log scale)")
    for axes in (accuracy, loss, time, memory):
        axes.spines[["top", "right"]].set_visible(False)
    return made


PAGE = Template((Path(__file__).parent / "page.html").read_text())


def write(rows: list[Row], clean: float, folder: Path) -> list[Path]:
    """Write ``report.png`` and ``report.html`` into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    png, page = folder / "report.png", folder / "report.html"
    drawn = figure(rows, clean)
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=130)
    plt.close(drawn)
    png.write_bytes(buffer.getvalue())
    headings = "".join(f"<th>{html.escape(heading)}</th>" for heading in HEADINGS)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row.cells()) + "</tr>" for row in rows)
    image = base64.b64encode(buffer.getvalue()).decode()
    note = html.escape(legend(rows))
    page.write_text(PAGE.substitute(clean=f"{clean:.1%}", legend=note, headings=headings, rows=lines, image=image))
    return [png, page]
