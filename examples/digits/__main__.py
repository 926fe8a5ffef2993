"""Personalisation on this machine, from start to end: ``make demo``.

A network learns clean digits with PyTorch. Its board then sees a shifted world and trains there with four update schemes,
beside PyTorch doing the same work. Prints one table; writes ``runs/demo/report.png`` and ``report.html``.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import edgekit
from examples.digits import report, world
from examples.digits.network import DigitNet, accuracy, pretrain
from examples.digits.pytorch import Peer
from examples.digits.report import Row
from examples.digits.schemes import SCHEMES, Scheme

BATCH = 8
EPOCHS = 12
MOMENTUM = 0.9
THREADS = 2
PRETRAINING_EPOCHS = 12
FOLDER = Path("runs/demo")


def train_on_board(model: DigitNet, scheme: Scheme, shifted: world.World, device: edgekit.Device) -> Row:
    """Compile the scheme, train on the board, measure there, and bring the parameters home."""
    example = (shifted.train.inputs[:BATCH], shifted.train.targets[:BATCH])
    optimizer = edgekit.SGD(lr=scheme.lr, momentum=MOMENTUM)
    program = edgekit.compile(model, example, loss="cross_entropy", board="local", update=scheme.update, optimizer=optimizer)
    before = device.evaluate(program, shifted.test.arrays())
    session = device.train(
        program, shifted.train.arrays(), epochs=EPOCHS, seed=0, cache="off"
    )  # PyTorch computes all of every step too
    records = list(session)
    after = device.evaluate(program, shifted.test.arrays())

    trained = copy.deepcopy(model)
    session.write_back(trained)
    home = accuracy(trained, shifted.test)
    assert after.accuracy is not None
    assert before.accuracy is not None
    if abs(home - after.accuracy) > 2 / len(shifted.test.targets):
        raise RuntimeError(f"PyTorch gets {home:.3f} with the board's parameters, the board {after.accuracy:.3f}")
    return Row(
        scheme=scheme.name,
        before=before.accuracy,
        after=after.accuracy,
        losses=[r.loss for r in records],
        step_ms=statistics.median(r.step_ns for r in records) / 1e6,
        memory_bytes=session.memory.training_bytes,
        process_bytes=max(r.rss_bytes or 0 for r in records),
        updated_bytes=program.report().updated_bytes,
        parameters=program.updated_parameters(),
    )


def train_with_pytorch(model: DigitNet, scheme: Scheme, row: Row, shifted: world.World) -> Row:
    """The same steps by PyTorch in a process of its own."""
    generator = torch.Generator().manual_seed(0)
    steps = len(row.losses)
    per_epoch = steps // EPOCHS
    order = [
        r for _ in range(EPOCHS) for r in torch.randperm(len(shifted.train.targets), generator=generator).split(BATCH)[:per_epoch]
    ]
    batches = [(shifted.train.inputs[rows], shifted.train.targets[rows]) for rows in order]
    with Peer(model, batches, row.parameters, THREADS, {"lr": scheme.lr, "momentum": MOMENTUM}) as peer:
        peer.run(20)  # not timed: the first steps set the library up
        run = peer.run(steps)
    return row.beside_pytorch(statistics.median(run.step_ns) / 1e6, run.growth_bytes, run.process_bytes)


def main() -> None:
    console = Console()
    start = time.monotonic()
    clean, shifted = world.load()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        pretraining = progress.add_task("PyTorch learns clean digits", total=PRETRAINING_EPOCHS)
        model = pretrain(clean.train, PRETRAINING_EPOCHS, lambda: progress.advance(pretraining))
        rows = []
        with edgekit.connect("local", threads=THREADS) as device:
            for scheme in SCHEMES:
                task = progress.add_task(f"Board: {scheme.name}", total=2)
                row = train_on_board(model, scheme, shifted, device)
                progress.update(task, advance=1, description=f"PyTorch: {scheme.name}")
                rows.append(train_with_pytorch(model, scheme, row, shifted))
                progress.update(task, advance=1, description=f"Done: {scheme.name}")
    clean_accuracy = accuracy(model, clean.test)
    console.print(report.table(rows, clean_accuracy))
    for path in report.write(rows, clean_accuracy, FOLDER):
        console.print(f"Wrote {path}")
    console.print(f"All in {time.monotonic() - start:.0f} s.")


if __name__ == "__main__":
    main()
