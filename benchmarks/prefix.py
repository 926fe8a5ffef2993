"""Training with and without the frozen prefix's cache: ``python -m benchmarks.prefix``.

Steps of MobileNetV2-1.0 on the local runner, by scheme: computed whole, and from the second epoch on from what is kept of each
sample, in float32 (the same numbers, which is checked), float16 and int8. Then the accuracy of the demonstration's sparse scheme,
on handwritten digits in a shifted world, with each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.cli.output import json_option, report, size, stderr
from edgekit.program import Program
from edgekit.sessions.caching import Caching
from examples.digits.network import pretrain
from examples.digits.schemes import SCHEMES
from examples.digits.world import load
from examples.models import mobilenet_v2

BATCH, BATCHES = 8, 4
STORAGES: tuple[Caching, ...] = ("off", "float32", "float16", "int8")


@dataclass(frozen=True)
class Row:
    """Median ms of a step by storage; bytes that are kept of a sample, and the share of a step's FLOPs that this saves."""

    update: str
    image: int
    ms: dict[str, float]
    sample_bytes: int
    share: float


@dataclass(frozen=True)
class Digits:
    """Accuracy in the shifted world before and, by storage, after training."""

    before: float
    after: dict[str, float]


@click.command()
@click.option("--updates", default="last:6,last:2,pockengine-mobilenetv2,head", show_default=True)
@click.option("--images", default="224,128", show_default=True, help="Pixels a side.")
@click.option("--threads", default=2, show_default=True)
@click.option("--epochs", default=6, show_default=True, help="Of four batches; the first is not timed.")
@click.option("--digits/--no-digits", default=True, show_default=True)
@json_option
def main(updates: str, images: str, threads: int, epochs: int, digits: bool) -> None:
    """Time steps with and without the cache, and compare what is learned."""
    rows = list(_time(updates.split(","), [int(i) for i in images.split(",")], threads, epochs))
    learned = _learn(threads) if digits else None
    data = {"threads": threads, "steps": [asdict(r) for r in rows], "digits": None if learned is None else asdict(learned)}
    report(data, lambda console: _draw(console, rows, learned))


def _time(updates: list[str], images: list[int], threads: int, epochs: int) -> Iterator[Row]:
    torch.manual_seed(0)
    model = mobilenet_v2(classes=10).eval()
    rng = np.random.default_rng(0)
    for image in images:
        count = BATCH * BATCHES
        data = {
            "inputs": rng.standard_normal((count, 3, image, image)).astype(np.float32),
            "targets": rng.integers(0, 10, count),
        }
        example = (torch.from_numpy(data["inputs"][:BATCH]), torch.from_numpy(data["targets"][:BATCH]))
        for update in updates:
            stderr().print(f"{update}, {image} pixels")
            program = edgekit.compile(model, example, update=update, optimizer=edgekit.SGD(lr=1e-4))
            prefix = program.report().prefix
            if prefix is None:
                sys.exit(f"{update} freezes nothing at the beginning")
            yield Row(update, image, _steps(program, data, threads, epochs), prefix.sample_bytes, prefix.share)


def _steps(program: Program, data: dict[str, np.ndarray], threads: int, epochs: int) -> dict[str, float]:
    losses: dict[str, list[float]] = {}
    ms = {}
    with tempfile.TemporaryDirectory() as folder, edgekit.connect("local", threads=threads) as device:
        for cache in STORAGES:
            session = device.train(program, data, epochs=epochs, reset=True, cache=cache, run_dir=Path(folder) / cache)
            records = list(session)
            losses[cache] = [r.loss for r in records]
            ms[cache] = statistics.median(r.step_ns for r in records[BATCHES:]) / 1e6
    if losses["float32"] != losses["off"]:
        sys.exit("float32 changed the numbers")
    return ms


def _learn(threads: int) -> Digits:
    clean, shifted = load()
    model = pretrain(clean.train, 12, lambda: None)
    scheme = next(s for s in SCHEMES if s.name == "sparse")
    example = (shifted.train.inputs[:BATCH], shifted.train.targets[:BATCH])
    program = edgekit.compile(model, example, update=scheme.update, optimizer=edgekit.SGD(lr=scheme.lr, momentum=0.9))
    after = {}
    with tempfile.TemporaryDirectory() as folder, edgekit.connect("local", threads=threads) as device:
        before = device.evaluate(program, shifted.test.arrays()).accuracy
        for cache in STORAGES:
            path = Path(folder) / cache
            device.train(program, shifted.train.arrays(), epochs=12, reset=True, cache=cache, run_dir=path).result()
            after[cache] = device.evaluate(program, shifted.test.arrays()).accuracy or 0.0
    return Digits(before or 0.0, after)


def _draw(console: Console, rows: list[Row], digits: Digits | None) -> None:
    table = Table(box=SIMPLE)
    columns = ("update", "image", "whole, ms", "cached float32", "float16", "int8", "whole / float32", "FLOPs saved", "a sample")
    for column in columns:
        table.add_column(column, justify="left" if column == "update" else "right")
    for r in rows:
        ms = [f"{r.ms[s]:.1f}" for s in STORAGES]
        ratio = f"{r.ms['off'] / r.ms['float32']:.1f}x"
        table.add_row(r.update, f"{BATCH}×{r.image}²", *ms, ratio, f"{r.share:.0%}", size(r.sample_bytes))
    console.print(table)
    if digits is not None:
        after = ", ".join(f"{storage} {accuracy:.1%}" for storage, accuracy in digits.after.items())
        console.print(f"digits in a shifted world: {digits.before:.1%} before; after training with the cache {after}")


if __name__ == "__main__":
    main()
