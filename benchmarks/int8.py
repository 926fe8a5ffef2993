"""int8 training beside float32 training, on handwritten digits in a shifted world: ``python -m benchmarks.int8``.

A network pretrained on clean digits (PyTorch, float32) is fine-tuned by the local runner on images that are turned, inverted and
noisy, with the demonstration's sparse scheme: in float32, in int8, and in int8 without quantisation-aware scaling, at the same
learning rate and at larger ones. Accuracy is that of the runner, in the precision that it trained in.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.cli.output import json_option, report
from examples.digits.network import DigitNet, pretrain
from examples.digits.world import World, load

UPDATE, LR, MOMENTUM, BATCH, CALIBRATION = "last:4", 0.003, 0.9, 8, 96
UNSCALED_LRS = (1.0, 1e3, 1e5)  #: times LR


@dataclass(frozen=True)
class Row:
    """Accuracy in the shifted world, by seed."""

    name: str
    before: float
    after: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.after)


def train(model: DigitNet, world: World, quantize: edgekit.Int8 | None, lr: float, seed: int, epochs: int) -> tuple[float, float]:
    """Accuracy before and after."""
    example = (world.train.inputs[:BATCH], world.train.targets[:BATCH])
    optimizer = edgekit.SGD(lr=lr, momentum=MOMENTUM)
    program = edgekit.compile(model, example, update=UPDATE, optimizer=optimizer, quantize=quantize)
    with edgekit.connect("local") as device:
        before = device.evaluate(program, world.test.arrays()).accuracy
        for _ in device.train(program, world.train.arrays(), epochs=epochs, seed=seed):
            pass
        after = device.evaluate(program, world.test.arrays()).accuracy
    assert before is not None
    assert after is not None
    return before, after


def compare(model: DigitNet, world: World, seeds: int, epochs: int, unscaled_lrs: Sequence[float] = UNSCALED_LRS) -> list[Row]:
    """Float32, int8, and int8 without scaling at so many times the learning rate."""
    whole = edgekit.Int8(world.train.inputs[:CALIBRATION])
    unscaled = edgekit.Int8(world.train.inputs[:CALIBRATION], scaled_updates=False)

    def row(name: str, quantize: edgekit.Int8 | None, lr: float) -> Row:
        runs = [train(model, world, quantize, lr, seed, epochs) for seed in range(seeds)]
        return Row(name, runs[0][0], tuple(after for _, after in runs))

    worse = [row(f"int8 unscaled, learning rate × {factor:g}", unscaled, LR * factor) for factor in unscaled_lrs]
    return [row("float32", None, LR), row("int8", whole, LR), *worse]


@click.command()
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(min=1))
@click.option("--pretraining", default=8, show_default=True, type=click.IntRange(min=1), help="Epochs in the clean world.")
@json_option
def main(seeds: int, epochs: int, pretraining: int) -> None:
    """Print accuracies."""
    clean, shifted = load()
    rows = compare(pretrain(clean.train, pretraining, lambda: None), shifted, seeds, epochs)
    made = Table(title=f"Digits, shifted, {UPDATE}", box=SIMPLE)
    for name in ("training", "before", "after, mean", "by seed"):
        made.add_column(name, justify="left" if name == "training" else "right")
    for r in rows:
        made.add_row(r.name, f"{r.before:.1%}", f"{r.mean:.1%}", " ".join(f"{a:.1%}" for a in r.after))

    def draw(console: Console) -> None:
        console.print(made)

    report({"rows": [asdict(r) for r in rows]}, draw)


if __name__ == "__main__":
    sys.exit(main())
