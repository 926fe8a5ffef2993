"""``edgekit compile``"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import edgekit
from edgekit.cli.options import ANY_PATH, FILE
from edgekit.cli.output import json_option, report, size, stderr
from edgekit.devices import parse_size
from edgekit.errors import InputError
from edgekit.user_model import load_calibration, load_model, parse_optimizer


@click.command("compile")
@click.argument("model")
@click.option("--board", default="local", show_default=True, metavar="ID", help="`edgekit boards` lists them.")
@click.option(
    "--update", default="full", show_default=True, metavar="SPEC", help="full, head, bias:N, last:N, a preset or a TOML file."
)
@click.option("--optimizer", default="sgd:lr=0.01", show_default=True, help="sgd:lr=0.01,momentum=0.9,weight_decay=1e-4,nesterov")
@click.option("--loss", default="cross_entropy", show_default=True, help="Name of the loss.")
@click.option("--batch", type=click.IntRange(min=1), help="Samples a step; the example batch's by default.")
@click.option("--accumulate", default=1, show_default=True, type=click.IntRange(min=1), help="Batches an update.")
@click.option("--clip-norm", type=click.FloatRange(min=0, min_open=True), help="Largest norm of all gradients together.")
@click.option("--quantize", metavar="DIR", type=ANY_PATH, help="Compute in int8, calibrated on the inputs of this data set.")
@click.option(
    "--int8-prefix", metavar="DIR", type=ANY_PATH, help="Only what comes before the first trained array in int8, calibrated so."
)
@click.option("--memory", metavar="SIZE", help="The most that the program may take of the board's memory, as 64MB.")
@click.option("--out", required=True, metavar="FILE.ekp", type=FILE)
@json_option
def command(
    model: str,
    board: str,
    update: str,
    optimizer: str,
    loss: str,
    batch: int | None,
    accumulate: int,
    clip_norm: float | None,
    quantize: Path | None,
    int8_prefix: Path | None,
    memory: str | None,
    out: Path,
) -> None:
    """Compile MODEL, "file.py:callable", for a board.

    The callable takes nothing and returns a torch.nn.Module and an example batch: (module, (inputs, targets)).
    """
    if quantize is not None and int8_prefix is not None:
        raise InputError("--quantize and --int8-prefix exclude each other", "--quantize has the prefix in int8, too")
    sgd = parse_optimizer(optimizer)
    limit = None if memory is None else parse_size(memory)
    module, example = load_model(model)
    if batch is not None:
        from edgekit.frontends.torch.batch import resize_batch  # torch takes its time to import

        example = resize_batch(example, batch)
    folder = quantize or int8_prefix
    calibration = None if folder is None else load_calibration(folder, example, prefix_only=quantize is None)
    start = time.monotonic()
    with stderr().status("capture") as status:
        program = edgekit.compile(
            module,
            example,
            loss=loss,
            board=board,
            update=update,
            optimizer=sgd,
            accumulate=accumulate,
            clip_norm=clip_norm,
            quantize=calibration,
            memory=limit,
            progress=status.update,
        )
    seconds = time.monotonic() - start
    program.save(out)
    facts: dict[str, Any] = {
        "out": str(out),
        "sha256": program.sha256.hex(),
        "bytes": len(program.data),
        "board": board,
        "costs": program.metadata["costs"],
        "seconds": seconds,
    }
    cost = program.report().int8_cost
    facts |= {} if cost is None else {"int8_cost": asdict(cost)}
    summary = f"{program.summary()}\nwrote {out} ({size(len(program.data))}) in {seconds:.1f} s"
    report(facts, lambda console: console.print(summary, markup=False, soft_wrap=True))
