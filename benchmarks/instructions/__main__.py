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
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from benchmarks.instructions.board import CountingBoard, counting_board
from benchmarks.instructions.measure import Steps, bring_sources, check_same, run_edgekit, run_torch
from benchmarks.instructions.root import make_home
from benchmarks.peers.job import Job
from benchmarks.peers.measure import make_job
from benchmarks.peers.networks import FULL, SPARSE, Work
from edgekit.cli.output import json_option, report, stderr
from edgekit.virtual import MACHINE, Step

NETWORK, SIZE, BATCHES = "mobilenetv2-0.35", 128, (1, 8)
LAYOUTS = {"ChannelsLast": "channels last", "Planar": "planar"}
NAME = "instructions"  #: of the board


@dataclass(frozen=True)
class Row:
    """One piece of work. ``torch``: by layout; ``ops``: instructions of edgekit's step by phase and op, where asked for."""

    batch: int
    update: str
    edgekit: Steps
    torch: dict[str, Steps]
    ops: dict[str, float]

    @property
    def ratio(self) -> float | None:
        """PyTorch's in its better layout over edgekit's."""
        return min(s.median for s in self.torch.values()) / self.edgekit.median if self.torch else None


def profile(board: CountingBoard, job: Job) -> dict[str, float]:
    """Instructions of a step by phase and op, the most first."""
    with edgekit.connect(board.device, threads=1) as device:
        ops = device.bench(edgekit.load(job.program), steps=1, profile=True).ops
    found = Counter[str]()
    for op in ops or ():
        found[f"{op.phase} {op.name}"] += op.ns  # type: ignore[assignment]
    return dict(found.most_common())


def draw(console: Console, rows: list[Row], built: str, profiled: bool) -> None:
    table = Table(
        box=SIMPLE, caption="M instructions a step; fewer: PyTorch's better layout over edgekit", caption_justify="left"
    )
    for title in ("batch", "update", "edgekit", *(f"PyTorch, {title}" for title in LAYOUTS.values()), "times fewer"):
        table.add_column(title, justify="left" if title == "update" else "right")
    for row in rows:
        theirs = (f"{row.torch[name].median / 1e6:.1f}" if name in row.torch else "" for name in LAYOUTS)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(str(row.batch), row.update, f"{row.edgekit.median / 1e6:.1f}", *theirs, ratio)
    console.print(table)
    for row in rows if profiled else ():
        console.print(f"batch {row.batch}, {row.update}")
        for name, count in row.ops.items():
            console.print(f"{count / 1e6:10.2f} M  {name}")
    console.print(built, soft_wrap=True)


@click.command(help=__doc__)
@click.option("--batches", default="1,8", show_default=True)
@click.option("--updates", default=f"{FULL},{SPARSE}", show_default=True)
@click.option("--layouts", default=",".join(LAYOUTS), show_default=True, help="Of PyTorch; empty: edgekit alone.")
@click.option("--steps", default=3, show_default=True, help="To count, after one to warm up.")
@click.option("--profile", "profiled", is_flag=True, help="Print the instructions of each kind of op.")
@json_option
def main(batches: str, updates: str, layouts: str, steps: int, profiled: bool) -> None:
    chosen = [name for name in layouts.split(",") if name]
    works = [Work(NETWORK, SIZE, int(batch), update, 1) for batch in batches.split(",") for update in updates.split(",")]
    rows: list[Row] = []
    built = ""
    with stderr().status("starting") as status, tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def tell(step: Step) -> None:
            status.update(step.what)

        with counting_board(NAME, make_home(tell) if chosen else None, tell) as board:
            if chosen:
                bring_sources(board)
            for number, work in enumerate(works):
                status.update(f"{work}: edgekit")
                place = folder / str(number)
                place.mkdir()
                job = make_job(work, place, MACHINE)
                ours = run_edgekit(board, job, steps, place / "run")
                theirs: dict[str, Steps] = {}
                for layout in chosen:
                    status.update(f"{work}: PyTorch, {LAYOUTS[layout]}")
                    built, theirs[layout] = run_torch(board, job, steps, layout)
                    check_same(job, theirs[layout], ours)
                rows.append(Row(work.batch, work.update, ours, theirs, profile(board, job) if profiled else {}))
    document = [{**asdict(row), "ratio": row.ratio} for row in rows]
    report({"rows": document, "pytorch": built}, lambda console: draw(console, rows, built, profiled))


if __name__ == "__main__":
    sys.exit(main())
