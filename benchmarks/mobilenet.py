"""A training step of MobileNetV2-1.0 beside PyTorch eager channels-last, in one run: ``make bench``.

Both sides get the same model (10 classes, BatchNorm folded into the convolutions), data, batch, threads and SGD step; runs
are interleaved, and the losses must agree. Writes ``runs/bench/mobilenet.json`` and ``mobilenet.png`` and prints a table.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import matplotlib
import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import edgekit
from benchmarks.peers.pytorch import Peer
from examples.models import mobilenet_v2

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MIB = 1 << 20
CLASSES = 10
LR = 1e-3
TOLERANCE = 1e-3  #: relative difference of the two sides' losses over the whole run


@dataclass(frozen=True)
class Work:
    """One thing to measure."""

    update: str
    size: int
    batch: int
    threads: int


@dataclass(frozen=True)
class Side:
    """One side's figures: step times in ms over all rounds, and memory in bytes."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    growth_bytes: int  #: peak resident set over that of the process with its weights loaded
    process_bytes: int


@dataclass(frozen=True)
class Result:
    work: Work
    edgekit: Side
    pytorch: Side
    loss_difference: float


def folded(module: nn.Module) -> nn.Module:
    """A copy of a network of Sequentials with every BatchNorm folded into the convolution before it."""
    made = copy.deepcopy(module).eval()
    for sequence in [m for m in made.modules() if isinstance(m, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            if isinstance(sequence[i], nn.Conv2d) and isinstance(sequence[i + 1], nn.BatchNorm2d):
                sequence[i], sequence[i + 1] = fuse_conv_bn_eval(sequence[i], sequence[i + 1]), nn.Identity()
    return made


def resident(pid: int) -> int:
    """Bytes of a process in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def loaded_runner(program: edgekit.Program, threads: int) -> int:
    """Bytes of a runner that has loaded the program, and has not trained yet."""
    with tempfile.TemporaryDirectory() as folder, edgekit.connect("local", threads=threads) as device:
        path = Path(folder) / "model.ekp"
        program.save(path)
        device.client.load(str(path))
        return resident(device.info.pid)


def side(step_ns: list[int], growth: int, process: int) -> Side:
    ms = sorted(ns / 1e6 for ns in step_ns)
    return Side(statistics.median(ms), ms[len(ms) // 10], ms[len(ms) * 9 // 10], growth, process)


def measure(work: Work, rounds: int, steps: int) -> Result:
    """Interleave ``rounds`` runs of ``steps`` steps of each side.

    Raises:
        RuntimeError: the two sides' losses do not agree: they did not do the same work.
    """
    torch.manual_seed(0)
    model = folded(mobilenet_v2(classes=CLASSES))
    x = torch.randn(work.batch, 3, work.size, work.size)
    y = torch.randint(CLASSES, (work.batch,))
    program = edgekit.compile(
        model, (x, y), loss="cross_entropy", board="local", update=work.update, optimizer=edgekit.SGD(lr=LR)
    )
    data = {"inputs": x.numpy(), "targets": y.numpy()}
    ours: list[edgekit.Record] = []
    times: list[int] = []
    losses: list[float] = []
    with (
        edgekit.connect("local", threads=work.threads) as device,
        Peer(model, [(x, y)], program.updated_parameters(), work.threads, {"lr": LR}) as peer,
    ):
        for number in range(rounds + 1):  # round 0 warms both sides up
            records = list(device.train(program, data, epochs=steps, shuffle=False))
            theirs = peer.run(steps)
            ours += records
            losses += theirs.losses
            if number:
                times += theirs.step_ns
    difference = float(np.max(np.abs(np.array([r.loss for r in ours]) / np.array(losses) - 1)))
    if not difference < TOLERANCE:
        raise RuntimeError(f"{work}: the losses differ by {difference:.1e}")
    process = max(r.rss_bytes or 0 for r in ours)
    mine = side([r.step_ns for r in ours[steps:]], process - loaded_runner(program, work.threads), process)
    return Result(work, mine, side(times, theirs.growth_bytes, theirs.process_bytes), difference)


def table(results: list[Result]) -> Table:
    """Medians, with the 10th and 90th percentile. Memory, in MiB: what training adds to the process, and the whole process."""
    made = Table(title="MobileNetV2-1.0, one training step: edgekit | PyTorch eager channels-last", box=SIMPLE, padding=(0, 1))
    for heading in ("update", "input", "thr", "ms (p10–p90)", "PyTorch", "ratio", "adds", "PyTorch", "ratio", "all", "PyTorch"):
        made.add_column(heading, justify="left" if heading == "update" else "right", no_wrap=True)
    for r in results:
        w, a, b = r.work, r.edgekit, r.pytorch
        made.add_row(
            w.update,
            f"{w.batch}×{w.size}²",
            str(w.threads),
            f"{a.median_ms:.1f} ({a.p10_ms:.1f}–{a.p90_ms:.1f})",
            f"{b.median_ms:.0f} ({b.p10_ms:.0f}–{b.p90_ms:.0f})",
            f"{b.median_ms / a.median_ms:.2f}x",
            f"{a.growth_bytes / MIB:.1f}",
            f"{b.growth_bytes / MIB:.0f}",
            f"1/{b.growth_bytes / max(a.growth_bytes, 1):.1f}",
            f"{a.process_bytes / MIB:.0f}",
            f"{b.process_bytes / MIB:.0f}",
        )
    return made


def plot(results: list[Result], path: Path) -> None:
    """Step time and memory growth of both sides, a pair of bars for each piece of work."""
    drawn, (time, memory) = plt.subplots(2, 1, figsize=(12, 8), layout="constrained")
    labels = [f"{r.work.update}\n{r.work.batch}×{r.work.size}²\n{r.work.threads} thr" for r in results]
    places = np.arange(len(results))
    for axes, title, of in (
        (time, "ms a step (log scale)", lambda s: s.median_ms),
        (memory, "memory that training adds to the process with its weights, MiB (log scale)", lambda s: s.growth_bytes / MIB),
    ):
        for shift, name, colour in ((-0.2, "edgekit", "#1b6ca8"), (0.2, "pytorch", "#c9702b")):
            bars = axes.bar(places + shift, [of(getattr(r, name)) for r in results], 0.4, color=colour, label=name)
            axes.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
        axes.set_yscale("log")
        axes.margins(y=0.15)
        axes.set_xticks(places, labels, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)


def machine() -> dict[str, object]:
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {"cpu": model[0] if model else platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Interleaved runs of each side.")
@click.option("--steps", default=6, show_default=True, help="Steps in a run.")
@click.option("--update", "updates", multiple=True, default=("full", "last:6"), show_default=True)
@click.option("--size", "sizes", multiple=True, type=int, default=(224, 128), show_default=True)
@click.option("--batch", "batches", multiple=True, type=int, default=(8, 1), show_default=True)
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(
    rounds: int,
    steps: int,
    updates: tuple[str, ...],
    sizes: tuple[int, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    folder: Path,
) -> None:
    """Measure a training step beside PyTorch."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    works = [Work(u, s, b, t) for s in sizes for b in batches for t in threads for u in updates]
    results = [measure(w, rounds, steps) for w in track(works, "Measuring", console=console)]
    folder.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "results": [asdict(r) for r in results]}
    (folder / "mobilenet.json").write_text(json.dumps(document, indent=1))
    plot(results, folder / "mobilenet.png")
    console.print(table(results))
    console.print(f"Wrote {folder}/mobilenet.json and {folder}/mobilenet.png")


if __name__ == "__main__":
    main()
