"""``edgekit bench``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.cli.device import open_device
from edgekit.cli.options import device_options
from edgekit.cli.output import json_option, number, report, size

if TYPE_CHECKING:
    from edgekit.sessions import Bench

_ROWS = 30  #: of the table, the slowest first


@click.command("bench")
@device_options
@click.option("--steps", default=20, show_default=True, type=click.IntRange(min=1), help="Steps to time, after one to warm up.")
@click.option("--profile", is_flag=True, help="Time each op too.")
@json_option
def command(
    device: str, program: Path, steps: int, profile: bool, threads: int | None, isa: str | None, board: str | None
) -> None:
    """Time training steps of MODEL.ekp on DEVICE with made-up data."""
    loaded = edgekit.load(program)
    with open_device(device, threads=threads, isa=isa, board=board) as connected:
        bench = connected.bench(loaded, steps, profile)
        info = connected.info
    report({"board": info.model_dump(), **asdict(bench)}, lambda console: _draw(console, bench))


def _draw(console: Console, bench: Bench) -> None:
    s, m = bench.summary, bench.memory
    console.print(
        f"step {number(s.median_ms, '.3f')} ms (p10 {number(s.p10_ms, '.3f')}, p90 {number(s.p90_ms, '.3f')}): load "
        f"{number(s.load_ms, '.3f')}, compute {number(s.compute_ms, '.3f')}, update {number(s.update_ms, '.3f')}"
    )
    console.print(
        f"memory: training {size(m.training_bytes)}, parameters {size(m.parameter_bytes)}, process {size(s.peak_rss_bytes)}"
    )
    if bench.ops is None:
        return
    table = Table(box=SIMPLE_HEAD)
    for title in ("Op", "Kind", "Module", "Phase"):
        table.add_column(title, justify="right" if title == "Op" else "left", overflow="fold")
    for title in ("µs a run", "Share"):
        table.add_column(title, justify="right", no_wrap=True)
    for op in bench.ops[:_ROWS]:
        table.add_row(str(op.number), op.name, op.module, op.phase, f"{op.ns / 1e3:.1f}", f"{op.share:.1%}")
    console.print(table)
    for phase in dict.fromkeys(op.phase for op in sorted(bench.ops, key=lambda op: op.number)):
        console.print(f"{phase}: {sum(op.share for op in bench.ops if op.phase == phase):.1%}", end="  ")
    rest = bench.ops[_ROWS:]
    console.print(f"({len(rest)} more ops: {sum(op.share for op in rest):.1%}; --json lists all)" if rest else "")
