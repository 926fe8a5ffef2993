"""``edgekit boards``"""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Column, Table

from edgekit.board import Board, all_boards
from edgekit.cli.output import json_option, report, size


@click.command("boards")
@json_option
def command() -> None:
    """List the boards that programs can be compiled for, yours included."""
    boards = all_boards()
    report([board.model_dump() for board in boards], lambda console: _draw(console, boards))


def _draw(console: Console, boards: list[Board]) -> None:
    table = Table(Column("Id", no_wrap=True), "Name", "Architecture", "Backend", "Cores", "Memory", "Links", "Sensors")
    for b in boards:
        cores = "any" if b.cores is None else str(b.cores)
        memory = "any" if b.memory is None else size(b.memory)
        sensors = ", ".join(b.sensors.paths) or "none"
        table.add_row(b.id, b.name, b.architecture, b.backend, cores, memory, ", ".join(b.links), sensors)
    console.print(table)
