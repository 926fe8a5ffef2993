"""edgekit's training step beside that of other frameworks, in one run.

The same networks, batches, parameters and plain SGD for all (BatchNorm folded), in rounds that take turns; whoever computes
another loss, or moves other parameters, is left out. Writes peers.json after each piece of work, and peers.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.peers import report
from benchmarks.peers.environments import PEERS, Unavailable, interpreter
from benchmarks.peers.measure import Effort, Result, measure
from benchmarks.peers.networks import FULL, NETWORKS, QUICK, SCHEMES, SHAPES, SPARSE, Work, applies
from edgekit.files import write_atomic

COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed}/{task.total}"),
    TimeElapsedColumn(),
)


def one_of(*known: str) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """A callback for an option that takes some of the names that are known, with commas between; all by default."""

    def split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(value.split(",")) if value else known
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", ctx, param)
        return names

    return split


@click.command(help=__doc__)
@click.option("--peers", callback=one_of(*PEERS), default="", help="Only these, with commas between; edgekit is one.")
@click.option("--models", callback=one_of(*NETWORKS), default="", help="Only these.")
@click.option("--updates", callback=one_of(FULL, SPARSE, *SCHEMES), default="", help="Only full, last:6, or published schemes.")
@click.option("--sizes", callback=one_of("224", "128"), default="", help="Only images of this size.")
@click.option("--batches", callback=one_of("8", "1"), default="", help="Only this batch.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--patience", default=60.0, show_default=True, help="Seconds to wait for a quiet machine, for each piece of work.")
@click.option("--quick", is_flag=True, help="MobileNetV2-1.0 at 8×128² only, in 3 rounds.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(
    peers: tuple[str, ...],
    models: tuple[str, ...],
    updates: tuple[str, ...],
    sizes: tuple[str, ...],
    batches: tuple[str, ...],
    threads: int,
    rounds: int,
    patience: float,
    quick: bool,
    folder: Path,
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    shapes = QUICK if quick else [s for s in SHAPES if s[0] in models and str(s[1]) in sizes and str(s[2]) in batches]
    works = [Work(*shape, update, threads) for shape in shapes for update in updates if applies(update, shape[0])]
    effort = Effort(rounds=3 if quick else rounds, patience_seconds=patience)
    settings = {"threads": threads, **asdict(effort)}
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    skipped: dict[str, str] = {}
    with Progress(*COLUMNS, console=console) as progress:
        task = progress.add_task("installing", total=len(works))
        interpreters = _interpreters(peers, skipped, lambda title: progress.update(task, description=f"installing {title}"))
        try:
            for work in works:
                tell = partial(_tell, progress, task, work)
                results.append(measure(work, interpreters, effort, logs, tell))
                _save(folder, results, skipped, settings)
                console.print(report.line(results[-1]), markup=False, highlight=False)
                progress.advance(task)
        except KeyboardInterrupt:
            console.print("interrupted: what was measured until now is below")
    if results:
        report.show(console, results, skipped)
        console.print(f"wrote {folder}/peers.json and {folder}/peers.png")
    if any(result.failed for result in results):
        raise SystemExit(1)


def _tell(progress: Progress, task: TaskID, work: Work, what: str) -> None:
    progress.update(task, description=f"{work}: {what}")


def _interpreters(peers: Sequence[str], skipped: dict[str, str], tell: Callable[[str], object]) -> dict[str, Path]:
    """Each peer's Python; those that cannot be installed go to ``skipped``."""
    found = {}
    for name in peers:
        tell(PEERS[name].title)
        try:
            found[name] = interpreter(name)
        except Unavailable as error:
            skipped[name] = str(error)
    return found


def _save(folder: Path, results: Sequence[Result], skipped: dict[str, str], settings: dict[str, Any]) -> None:
    document = json.dumps(report.document(results, skipped, settings), indent=1)
    write_atomic(folder / "peers.json", document.encode())
    report.plot(results, folder / "peers.png")


if __name__ == "__main__":
    main()
