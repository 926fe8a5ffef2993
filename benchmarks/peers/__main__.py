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
from benchmarks.peers.networks import FULL, NETWORKS, QUICK, SHAPES, SPARSE, Work
from edgekit.files import write_atomic

COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed}/{task.total}"),
    TimeElapsedColumn(),
)


class Names(click.ParamType):
    """Names out of a list, with commas between."""

    name = "names"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = value if isinstance(value, tuple) else tuple(value.split(","))
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known)}", param, ctx)
        return names


@click.command(help=__doc__)
@click.option("--peers", type=Names(tuple(PEERS)), default=tuple(PEERS), help="Only these; edgekit is one. All by default.")
@click.option("--models", type=Names(tuple(NETWORKS)), default=tuple(NETWORKS), help="Only these. All by default.")
@click.option("--updates", type=Names((FULL, SPARSE)), default=(FULL, SPARSE), help="full, last:6. Both by default.")
@click.option("--sizes", type=Names(("224", "128")), default=("224", "128"), help="Only images of these sizes.")
@click.option("--batches", type=Names(("8", "1")), default=("8", "1"), help="Only these batches.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
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
    quick: bool,
    folder: Path,
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    shapes = QUICK if quick else [s for s in SHAPES if s[0] in models and str(s[1]) in sizes and str(s[2]) in batches]
    works = [Work(*shape, update, threads) for shape in shapes for update in updates]
    effort = Effort(rounds=3 if quick else rounds)
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
