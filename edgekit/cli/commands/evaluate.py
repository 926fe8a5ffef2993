"""``edgekit evaluate``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

import edgekit
from edgekit.cli.device import open_device
from edgekit.cli.options import checkpoint_option, data_option, device_options, stream_options
from edgekit.cli.output import json_option, number, report


@click.command("evaluate")
@device_options
@data_option
@checkpoint_option
@stream_options
@json_option
def command(
    device: str,
    program: Path,
    data: Path,
    checkpoint: Path | None,
    threads: int | None,
    isa: str | None,
    board: str | None,
    stream: bool | None,
    spool: int | None,
) -> None:
    """Loss and accuracy of MODEL.ekp over a data set, on DEVICE ("local": this machine)."""
    loaded = edgekit.load(program)
    with open_device(device, threads=threads, isa=isa, board=board) as connected:
        metrics = connected.evaluate(loaded, data, checkpoint=checkpoint, stream=stream, spool=spool)
    line = f"loss {number(metrics.loss, '.4f')}   accuracy {number(metrics.accuracy, '.2%')}   samples {metrics.samples}"
    report(asdict(metrics), lambda console: console.print(line))
