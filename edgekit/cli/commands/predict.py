"""``edgekit predict``"""

from __future__ import annotations

from pathlib import Path

import click

import edgekit
from edgekit.cli.device import open_device
from edgekit.cli.options import FILE, checkpoint_option, data_option, device_options
from edgekit.cli.output import json_option, report
from edgekit.files import write_npy


@click.command("predict")
@device_options
@data_option
@click.option("--out", required=True, metavar="FILE.npy", type=FILE, help="Where the outputs go, one row a sample.")
@checkpoint_option
@json_option
def command(
    device: str,
    program: Path,
    data: Path,
    out: Path,
    checkpoint: Path | None,
    threads: int | None,
    isa: str | None,
    board: str | None,
) -> None:
    """Outputs of MODEL.ekp for every sample of a data set, computed on DEVICE."""
    loaded = edgekit.load(program)
    with open_device(device, threads=threads, isa=isa, board=board) as connected:
        outputs = connected.predict(loaded, data, checkpoint=checkpoint)
    write_npy(out, outputs)
    result = {"out": str(out), "shape": outputs.shape, "dtype": outputs.dtype.name}
    report(result, lambda console: console.print(f"wrote {out}: {outputs.dtype.name} {outputs.shape}"))
