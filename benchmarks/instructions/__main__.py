"""Instructions of a training step on the virtual Raspberry Pi, edgekit's beside those of PyTorch's own build for Arm.

QEMU emulates one Cortex-A72 whose clock counts instructions, 1 ns each (``edgekit virtual start --icount``), so a step's time is
how many instructions it takes: with the system calls and page faults in it, and the kernel's timer, 250 times in a billion. Both
train the same arrays on the same batch with plain SGD, BatchNorm folded, in one thread (benchmarks/peers/job.py); losses, and how
far each parameter moved, are checked. PyTorch runs from a Debian root file system with its wheel from PyPI, with images in both
of its layouts; the better one counts.

``--profile`` prints which of edgekit's ops take the instructions.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from benchmarks.instructions.board import CountingBoard, counting_board
from benchmarks.instructions.measure import Steps, bring_sources, check_same, run_edgekit, run_torch
from benchmarks.instructions.root import make_home
from benchmarks.peers.__main__ import one_of
from benchmarks.peers.job import Job
from benchmarks.peers.measure import make_job
from benchmarks.peers.networks import FULL, SPARSE, Work
from edgekit.cli.output import json_option, report, stderr
from edgekit.virtual import MACHINE, Step

NETWORK, SIZE, BATCHES = "mobilenetv2-0.35", 128, ("1", "8")
LAYOUTS = {"Planar": "NCHW", "ChannelsLast": "channels last"}  #: PyTorch's, by the class of worker.py
NAME = "instructions"  #: of the board


@dataclass(frozen=True)
class Row:
    """One piece of work. ``torch``: by layout; ``ops``: instructions of edgekit's step by phase and op, where asked for."""

    work: Work
    edgekit: Steps
    torch: dict[str, Steps]
    ops: dict[str, float]

    @property
    def ratio(self) -> float | None:
        """PyTorch's in its better layout over edgekit's; None without PyTorch."""
        return min(s.median for s in self.torch.values()) / self.edgekit.median if self.torch else None

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        steps = {"edgekit": self.edgekit, **{f"pytorch {LAYOUTS[name]}": s for name, s in self.torch.items()}}
        told = {name: {"median": s.median, "counts": s.counts, "losses": s.losses} for name, s in steps.items()}
        return {
            "work": str(self.work),
            "batch": self.work.batch,
            "update": self.work.update,
            **told,
            "ratio": self.ratio,
            "ops": self.ops,
        }


def profile(board: CountingBoard, job: Job) -> dict[str, float]:
    """Instructions of a step by phase and op, the most first."""
    with edgekit.connect(board.device, threads=1) as device:
        ops = device.bench(edgekit.load(job.program), steps=1, profile=True).ops
    found = Counter[str]()
    for op in ops or ():
        found[f"{op.phase} {op.name}"] += op.ns  # type: ignore[assignment]
    return dict(found.most_common())


def measure(
    board: CountingBoard, work: Work, layouts: Sequence[str], steps: int, profiled: bool, tell: Callable[[str], object]
) -> tuple[str, Row]:
    """How PyTorch was built ("" without it), and what a piece of work takes.

    Raises:
        Different: the two do not do the same work.
    """
    with tempfile.TemporaryDirectory() as folder:
        tell(f"{work}: edgekit")
        job = make_job(work, Path(folder), MACHINE)
        ours = run_edgekit(board, job, steps, Path(folder) / "run")
        built, theirs = "", dict[str, Steps]()
        for layout in layouts:
            tell(f"{work}: PyTorch, {LAYOUTS[layout]}")
            built, theirs[layout] = run_torch(board, job, steps, layout)
            check_same(job, theirs[layout], ours)
        return built, Row(work, ours, theirs, profile(board, job) if profiled else {})


def draw(console: Console, rows: Sequence[Row], built: str) -> None:
    caption = "millions of instructions a step; times fewer: PyTorch's in its better layout over edgekit's"
    table = Table(box=SIMPLE, caption=caption, caption_justify="left")
    for title in ("batch", "update", "edgekit", *(f"PyTorch, {title}" for title in LAYOUTS.values()), "times fewer"):
        table.add_column(title, justify="left" if title == "update" else "right")
    for row in rows:
        theirs = (f"{row.torch[name].median / 1e6:.1f}" if name in row.torch else "" for name in LAYOUTS)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(str(row.work.batch), row.work.update, f"{row.edgekit.median / 1e6:.1f}", *theirs, ratio)
    console.print(table)
    for row in rows:
        if row.ops:
            console.print(str(row.work))
        for name, count in row.ops.items():
            console.print(f"{count / 1e6:10.2f} M  {name}")
    console.print(built, soft_wrap=True, markup=False)


@click.command(help=__doc__)
@click.option("--batches", callback=one_of(*BATCHES), default="", help="Only this one.")
@click.option("--updates", callback=one_of(FULL, SPARSE), default="", help="Only full, or only last:6.")
@click.option("--layouts", callback=one_of(*LAYOUTS), default="", help="Only this one of PyTorch's: Planar or ChannelsLast.")
@click.option("--no-peer", is_flag=True, help="edgekit alone.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="To count, after one to warm up.")
@click.option("--profile", "profiled", is_flag=True, help="Print the instructions of each kind of op.")
@json_option
def main(
    batches: tuple[str, ...], updates: tuple[str, ...], layouts: tuple[str, ...], no_peer: bool, steps: int, profiled: bool
) -> None:
    works = [Work(NETWORK, SIZE, int(batch), update, 1) for batch in batches for update in updates]
    layouts = () if no_peer else layouts
    rows: list[Row] = []
    built = ""
    console = stderr()
    with console.status("starting") as status:

        def tell(step: Step) -> None:
            status.update(step.what)

        with counting_board(NAME, make_home(tell) if layouts else None, tell) as board:
            if layouts:
                bring_sources(board)
            for work in works:
                built, row = measure(board, work, layouts, steps, profiled, status.update)
                rows.append(row)
                console.print(f"{work}: {row.edgekit.median / 1e6:.1f} M", markup=False)
    report({"rows": [row.document() for row in rows], "pytorch": built}, lambda console: draw(console, rows, built))


if __name__ == "__main__":
    sys.exit(main())
