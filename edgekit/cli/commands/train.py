"""``edgekit train``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

import edgekit
from edgekit.cli.options import ANY_PATH, data_option, device_options
from edgekit.cli.output import json_option, number, path, report, size, stderr
from edgekit.cli.progress import TrainingProgress
from edgekit.telemetry import summarize

if TYPE_CHECKING:
    from edgekit.sessions import Session


@click.command("train")
@device_options
@data_option
@click.option("--epochs", default=1, show_default=True, type=click.IntRange(min=1), help="Times through the data.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after that many.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Samples in a new order each epoch.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of the order, and of dropout.")
@click.option("--checkpoint-every", metavar="STEPS", type=click.IntRange(min=1), help="Save a checkpoint that often.")
@click.option("--resume", metavar="PATH", type=ANY_PATH, help="Go on from a checkpoint, or from a run's folder.")
@click.option("--run-dir", metavar="DIR", type=ANY_PATH, help="The run's folder; a new one in runs/ by default.")
@json_option
def command(
    device: str, program: Path, data: Path, threads: int | None, isa: str | None, board: str | None, **options: Any
) -> None:
    """Train MODEL.ekp on DEVICE ("local": this machine). Ctrl-C stops the board and keeps what was trained."""
    loaded = edgekit.load(program)
    with edgekit.connect(device, threads=threads, isa=isa, board=board) as connected:
        session = connected.train(loaded, data, **options)
        try:
            with TrainingProgress(stderr(), session.planned) as progress:
                for record in session:
                    progress.show(record)
        except (KeyboardInterrupt, SystemExit):  # SIGINT, SIGTERM
            _report(session)
            raise
    _report(session)


def _report(session: Session) -> None:
    summary = summarize(session.records)
    data = {
        "run": path(session.folder),
        "state": session.ended_as,
        "steps": summary.steps,
        "planned": session.planned,
        "dropped": session.dropped,
        "checkpoint": None if session.checkpoint is None else path(session.checkpoint),
        "memory": asdict(session.memory),
        "summary": asdict(summary),
    }

    def draw(console: Console) -> None:
        console.print(
            f"{session.ended_as} after {summary.steps} steps: loss {number(summary.first_loss, '.4f')} → "
            f"{number(summary.last_loss, '.4f')}, {number(summary.median_ms, '.2f')} ms a step (p10 "
            f"{number(summary.p10_ms, '.2f')}, p90 {number(summary.p90_ms, '.2f')})",
            soft_wrap=True,
        )
        console.print(
            f"memory: training {size(session.memory.training_bytes)}, parameters {size(session.memory.parameter_bytes)}, "
            f"process {size(summary.peak_rss_bytes)}; highest temperature {number(summary.max_temperature_c, '.1f', ' °C')}",
            soft_wrap=True,
        )
        console.print(f"run folder: {path(session.folder)}", soft_wrap=True)

    report(data, draw)
