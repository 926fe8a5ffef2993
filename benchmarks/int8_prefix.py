"""The frozen prefix in int8 beside float32: ``python -m benchmarks.int8_prefix``.

Steps of MobileNetV2-1.0 on the local runner, in turns, the best of each: computed whole in float32 and with an int8 prefix, and
later epochs' that read what is kept of each sample. Then accuracy: the demonstration's sparse scheme on handwritten digits in a
shifted world, trained with either prefix, by seed.
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
from edgekit.cli.output import json_option, report, stderr
from edgekit.program import Program
from edgekit.sessions.caching import Caching
from examples.digits.network import pretrain
from examples.digits.schemes import SCHEMES
from examples.digits.world import load
from examples.models import mobilenet_v2

BATCH, BATCHES, CALIBRATION = 8, 4, 96
WAYS: dict[str, tuple[bool, Caching]] = {
    "float32": (False, "off"),
    "int8": (True, "off"),
    "float32, cached": (False, "float32"),
    "int8, cached": (True, "float32"),
}  #: whether the prefix is in int8, and what is kept


@dataclass(frozen=True)
class Row:
    """Best ms of a step and, of the ways that compute it, of the prefix's ops alone."""

    image: int
    step: dict[str, float]
    prefix: dict[str, float]


@dataclass(frozen=True)
class Digits:
    """Accuracy in the shifted world before and after training, by precision of the prefix; after, by seed."""

    before: dict[str, float]
    after: dict[str, list[float]]
    cost: str


@click.command()
@click.option("--images", default="224,128", show_default=True, help="Pixels a side.")
@click.option("--update", default="last:6", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--isa", help="Instruction set of the kernels; the best one by default.")
@click.option("--rounds", default=6, show_default=True, help="Turns of each way, of four steps.")
@click.option("--seeds", default=3, show_default=True, help="Trainings on the digits; 0: none.")
@json_option
def main(images: str, update: str, threads: int, isa: str | None, rounds: int, seeds: int) -> None:
    """Time steps and prefixes, and compare what is learned."""
    rows = [_time(int(image), update, threads, isa, rounds) for image in images.split(",") if image]
    learned = _learn(threads, seeds) if seeds else None
    data = {"update": update, "threads": threads, "steps": [asdict(r) for r in rows]}
    report({**data, "digits": None if learned is None else asdict(learned)}, lambda console: _draw(console, rows, learned))


def _time(image: int, update: str, threads: int, isa: str | None, rounds: int) -> Row:
    torch.manual_seed(0)
    model = mobilenet_v2(classes=10).eval()
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((BATCH * BATCHES, 3, image, image)).astype(np.float32)
    data = {"inputs": inputs, "targets": rng.integers(0, 10, len(inputs))}
    example = torch.from_numpy(inputs[:BATCH]), torch.from_numpy(data["targets"][:BATCH])
    stderr().print(f"{update}, {image} pixels")
    whole = edgekit.Int8(torch.from_numpy(inputs[: 2 * BATCH]), prefix_only=True)
    programs = {
        int8: edgekit.compile(model, example, update=update, optimizer=edgekit.SGD(lr=1e-4), quantize=whole if int8 else None)
        for int8 in (False, True)
    }
    step = dict.fromkeys(WAYS, float("inf"))
    prefix = {"float32": float("inf"), "int8": float("inf")}
    with edgekit.connect("local", threads=threads, isa=isa) as device, tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name, (int8, cache) in WAYS.items():
                path = Path(folder) / f"{turn}{name}"
                session = device.train(programs[int8], data, epochs=2, reset=True, cache=cache, run_dir=path)
                step[name] = min(step[name], *(r.step_ns / 1e6 for r in list(session)[BATCHES:]))
            for name, int8 in (("float32", False), ("int8", True)):
                prefix[name] = min(prefix[name], _prefix_ms(device, programs[int8]))
    return Row(image, step, prefix)


def _prefix_ms(device: edgekit.Device, program: Program) -> float:
    """Of the step's ops in the modules that make the prefix, the input's conversion included."""
    modules = {op.origin.module for op in program.entries["prefix"].ops}
    ops = device.bench(program, 4, profile=True).ops
    assert ops is not None
    return sum(op.ns for op in ops if op.phase == "forward" and op.module in modules) / 1e6


def _learn(threads: int, seeds: int) -> Digits:
    clean, shifted = load()
    model = pretrain(clean.train, 12, lambda: None)
    scheme = next(s for s in SCHEMES if s.name == "sparse")
    example = (shifted.train.inputs[:BATCH], shifted.train.targets[:BATCH])
    inputs, targets = shifted.train.inputs[:CALIBRATION], shifted.train.targets[:CALIBRATION]
    before, after, cost = {}, {}, ""
    with edgekit.connect("local", threads=threads) as device, tempfile.TemporaryDirectory() as folder:
        for name, whole in (("float32", None), ("int8", edgekit.Int8(inputs, prefix_only=True, targets=targets))):
            optimizer = edgekit.SGD(lr=scheme.lr, momentum=0.9)
            program = edgekit.compile(model, example, update=scheme.update, optimizer=optimizer, quantize=whole)
            found = program.report().int8_cost
            cost = found.text() if found else cost
            before[name] = device.evaluate(program, shifted.test.arrays()).accuracy or 0.0
            after[name] = list(_trained(device, program, seeds, Path(folder) / name))
    return Digits(before, after, cost)


def _trained(device: edgekit.Device, program: Program, seeds: int, folder: Path) -> Iterator[float]:
    _, shifted = load()
    for seed in range(seeds):
        path = folder / str(seed)
        device.train(program, shifted.train.arrays(), epochs=12, reset=True, seed=seed, cache="off", run_dir=path).result()
        yield device.evaluate(program, shifted.test.arrays()).accuracy or 0.0


def _draw(console: Console, rows: list[Row], digits: Digits | None) -> None:
    table = Table(box=SIMPLE)
    for column in ("image", *(f"{name}, ms" for name in WAYS), "prefix float32, ms", "int8", "float32 / int8"):
        table.add_column(column, justify="right")
    for r in rows:
        ratio = f"{r.prefix['float32'] / r.prefix['int8']:.2f}x"
        ms = [f"{v:.1f}" for v in (*r.step.values(), *r.prefix.values())]
        table.add_row(f"{BATCH}×{r.image}²", *ms, ratio)
    console.print(table)
    if digits is None:
        return
    console.print(f"digits: {digits.cost}", soft_wrap=True)
    for name, after in digits.after.items():
        by_seed = " ".join(f"{a:.2%}" for a in after)
        console.print(f"{name} prefix: {digits.before[name]:.1%} before, {statistics.mean(after):.2%} after ({by_seed})")


if __name__ == "__main__":
    sys.exit(main())
