"""``edgekit inspect``"""

from __future__ import annotations

from pathlib import Path

import click

import edgekit
from edgekit.cli.options import FILE
from edgekit.cli.output import json_option, report, stderr


@click.command("inspect")
@click.argument("program", metavar="MODEL.ekp", type=FILE)
@click.option("--plot", metavar="FILE.png", type=FILE, help="Draw memory over the course of a step.")
@click.option("--disassemble", is_flag=True, help="List every op with its operands.")
@json_option
def command(program: Path, plot: Path | None, disassemble: bool) -> None:
    """Say what MODEL.ekp holds: ops, updated parameters, FLOPs, memory by purpose."""
    from edgekit.program import inspect

    loaded = edgekit.load(program)
    found = inspect.inspect(loaded)
    listing = inspect.disassemble(loaded) if disassemble else None
    if plot is not None:
        inspect.plot(loaded, plot)
        stderr().print(f"wrote {plot}")
    text = found.text() if listing is None else f"{found.text()}\n\n{listing}"
    data = found.to_json() if listing is None else {**found.to_json(), "disassembly": listing.splitlines()}
    report(data, lambda console: console.print(text, markup=False, soft_wrap=True))
