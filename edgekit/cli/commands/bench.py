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
from edgekit.cli.options import FILE, runner_options
from edgekit.cli.output import json_option, number, report, size, stderr
from edgekit.cli.progress import counted
from edgekit.costs import KINDS, Costs
from edgekit.sessions.bench import efficiency
from edgekit.sessions.calibrate import calibrate as calibrate_board

if TYPE_CHECKING:
    from edgekit.sessions import Bench, Limits, OpTime

_ROWS = 30  #: of the table, the slowest first


@click.command("bench")
@runner_options
@click.argument("program", metavar="[MODEL.ekp]", required=False, type=FILE)
@click.option("--steps", default=20, show_default=True, type=click.IntRange(min=1), help="Steps to time, after one to warm up.")
@click.option("--profile", is_flag=True, help="Time each op too, beside the board's limit for it.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Without MODEL.ekp: time dense 3×3 convolutions by each algorithm; what is compiled for this board's profile then gets "
    "the faster one for each shape.",
)
@json_option
def command(
    device: str,
    program: Path | None,
    steps: int,
    profile: bool,
    calibrate: bool,
    threads: int | None,
    isa: str | None,
    board: str | None,
) -> None:
    """Time training steps of MODEL.ekp on DEVICE with made-up data."""
    if (program is None) != calibrate or (calibrate and profile):
        raise click.UsageError("give a MODEL.ekp to time, or --calibrate")
    if program is None:
        _calibrate(device, threads, isa, board)
        return
    loaded = edgekit.load(program)
    with open_device(device, threads=threads, isa=isa, board=board) as connected:
        bench = connected.bench(loaded, steps, profile)
        info = connected.info
    report({"board": info.model_dump(), **asdict(bench)}, lambda console: _draw(console, bench))


def _calibrate(device: str, threads: int | None, isa: str | None, board: str | None) -> None:
    with edgekit.connect(device, threads=threads, isa=isa, board=board) as connected, counted(stderr(), "calibrating") as show:
        costs = calibrate_board(connected, show)
    path = costs.save()
    report({"file": str(path), **costs.model_dump(mode="json")}, lambda console: _draw_costs(console, costs, path))


def _draw_costs(console: Console, costs: Costs, path: Path) -> None:
    """Each algorithm's speed for each shape, the faster one marked."""
    table = Table(box=SIMPLE_HEAD, caption="GFLOP/s as a matrix product / by Winograd's algorithm; * is the faster one")
    for title in ("Results", "Channels", *(kind.replace("_", " ") for kind in KINDS)):
        table.add_column(title, justify="right", no_wrap=True)
    for layer in costs.layers:
        speeds = (_marked(*getattr(layer, kind)) for kind in KINDS)
        table.add_row(str(layer.results), f"{layer.inputs}→{layer.outputs}", *speeds)
    console.print(table)
    console.print(f"wrote {path}: `edgekit compile --board {costs.board}` uses it from now on", markup=False, soft_wrap=True)


def _marked(product: float, winograd: float) -> str:
    return f"{product:.3g}  / {winograd:.3g}*" if winograd > product else f"{product:.3g}* / {winograd:.3g} "


def _draw(console: Console, bench: Bench) -> None:
    s, m = bench.summary, bench.memory
    console.print(
        f"step {number(s.median_ms, '.3f')} ms (p10 {number(s.p10_ms, '.3f')}, p90 {number(s.p90_ms, '.3f')}): load "
        f"{number(s.load_ms, '.3f')}, compute {number(s.compute_ms, '.3f')}, update {number(s.update_ms, '.3f')}"
    )
    console.print(
        f"memory: training {size(m.training_bytes)}, parameters {size(m.parameter_bytes)}, process {size(s.peak_rss_bytes)}"
    )
    if bench.ops is None or bench.limits is None:
        return
    table = Table(box=SIMPLE_HEAD)
    for title in ("Op", "Kind", "Module", "Phase"):
        table.add_column(title, justify="right" if title == "Op" else "left", overflow="fold")
    for title in ("ms", "Share", "GFLOP/s", "GB/s", "% of limit"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("Limit", no_wrap=True)
    for op in bench.ops[:_ROWS]:
        table.add_row(
            str(op.number),
            op.name,
            op.module,
            op.phase,
            f"{op.ns / 1e6:.3f}",
            f"{op.share:.1%}",
            f"{op.flops / op.ns:.1f}",
            f"{op.nbytes / op.ns:.1f}",
            f"{op.efficiency:.0%}",
            op.limited_by,
        )
    console.print(table)
    rest = bench.ops[_ROWS:]
    if rest:
        console.print(f"{len(rest)} more ops: {sum(op.share for op in rest):.1%}; --json lists all")
    _draw_limits(console, bench.ops, bench.limits)


def _draw_limits(console: Console, ops: tuple[OpTime, ...], limits: Limits) -> None:
    """What the board can do, and how much of it each phase and the whole step reached."""
    small, large = limits.bandwidth[0], limits.bandwidth[-1]
    console.print(
        f"limits: {limits.flops / 1e9:.1f} GFLOP/s; memory {large[1] / 1e9:.1f} GB/s with {size(large[0])} of data, "
        f"{small[1] / 1e9:.1f} GB/s with {size(small[0])}"
    )
    for name in dict.fromkeys(op.phase for op in sorted(ops, key=lambda op: op.number)):
        mine = [op for op in ops if op.phase == name]
        console.print(f"{name}: {sum(op.share for op in mine):.1%} of the time, at {efficiency(mine):.0%} of the limit")
    console.print(f"step: at {efficiency(ops):.0%} of the limit")
