"""int8 training beside float32 training, on handwritten digits in a shifted world: ``python -m benchmarks.int8``.

A network pretrained on clean digits (PyTorch, float32) is fine-tuned by the local runner on images that are turned, inverted and
noisy, with the demonstration's sparse scheme: in float32, in int8, and in int8 without quantisation-aware scaling, at the same
learning rate and at larger ones. Accuracy is that of the runner, in the precision that it trained in.

``--device virtual-m7`` trains and measures int8 on a microcontroller (``edgekit virtual start virtual-m7`` first), float32 on
this machine, both sample by sample and without momentum, whose float32 arrays would not fit there; about six minutes a training.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.cli.output import json_option, report
from examples.digits.network import DigitNet, pretrain
from examples.digits.world import Split, World, load

UPDATE, CALIBRATION = "last:4", 96
UNSCALED_LRS = (1.0, 1e3, 1e5)  #: times the setting's


@dataclass(frozen=True)
class Row:
    """Accuracy in the shifted world, by seed."""

    name: str
    before: float
    after: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.after)


@dataclass(frozen=True)
class Setting:
    """Where int8 is trained, and how."""

    device: str = "local"
    batch: int = 8
    epochs: int = 6
    lr: float = 0.003
    momentum: float = 0.9


SETTINGS = {"local": Setting(), "virtual-m7": Setting("virtual-m7", batch=1, epochs=8, lr=0.002, momentum=0.0)}


def train(model: DigitNet, world: World, quantize: edgekit.Int8 | None, lr: float, seed: int, to: Setting) -> tuple[float, float]:
    """Accuracy before and after; float32 on this machine."""
    example = (world.train.inputs[: to.batch], world.train.targets[: to.batch])
    optimizer, place = edgekit.SGD(lr=lr, momentum=to.momentum), "local" if quantize is None else to.device
    program = edgekit.compile(model, example, board=place, update=UPDATE, optimizer=optimizer, quantize=quantize)
    with edgekit.connect(place) as device:
        before = device.evaluate(program, world.test.arrays()).accuracy
        for _ in device.train(program, world.train.arrays(), epochs=to.epochs, seed=seed):
            pass
        after = device.evaluate(program, world.test.arrays()).accuracy
    assert before is not None
    assert after is not None
    return before, after


def compare(model: DigitNet, world: World, seeds: int, to: Setting, unscaled_lrs: Sequence[float] = UNSCALED_LRS) -> list[Row]:
    """Float32, int8, and int8 without scaling at so many times the learning rate."""
    whole = edgekit.Int8(world.train.inputs[:CALIBRATION])
    unscaled = edgekit.Int8(world.train.inputs[:CALIBRATION], scaled_updates=False)

    def row(name: str, quantize: edgekit.Int8 | None, lr: float) -> Row:
        runs = []
        for seed in range(seeds):
            runs.append(train(model, world, quantize, lr, seed, to))
            click.echo(f"{name}, seed {seed}: accuracy {runs[-1][0]:.1%}, then {runs[-1][1]:.1%}", err=True)
        return Row(name, runs[0][0], tuple(after for _, after in runs))

    good = [row("float32", None, to.lr), row("int8", whole, to.lr)]
    return good + [row(f"int8 unscaled, learning rate × {factor:g}", unscaled, to.lr * factor) for factor in unscaled_lrs]


def first(world: World, samples: int) -> World:
    """The first images of each split."""
    splits = [Split(s.inputs[:samples], s.targets[:samples]) for s in (world.train, world.test)]
    return World(splits[0], splits[1])


@click.command()
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs", type=click.IntRange(min=1), help="[default: 6; on a microcontroller 8]")
@click.option("--pretraining", default=8, show_default=True, type=click.IntRange(min=1), help="Epochs in the clean world.")
@click.option("--device", default="local", show_default=True, type=click.Choice(tuple(SETTINGS)))
@click.option("--samples", default=400, show_default=True, type=click.IntRange(8, 400), help="Of each of training and test.")
@click.option("--unscaled", type=float, multiple=True, default=UNSCALED_LRS, help="Times the learning rate, without scaling.")
@json_option
def main(seeds: int, epochs: int | None, pretraining: int, device: str, samples: int, unscaled: tuple[float, ...]) -> None:
    """Print accuracies."""
    clean, shifted = load()
    to = replace(SETTINGS[device], epochs=epochs or SETTINGS[device].epochs)
    rows = compare(pretrain(clean.train, pretraining, lambda: None), first(shifted, samples), seeds, to, unscaled)
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
