"""``edgekit sessions``"""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from edgekit.cli.device import open_device
from edgekit.cli.output import json_option, report, size


@click.command("sessions")
@click.argument("device")
@click.option("--remove", metavar="ID", multiple=True, help="Delete a session that is over; several times for several.")
@json_option
def command(device: str, remove: tuple[str, ...]) -> None:
    """List the trainings that DEVICE keeps, the newest last."""
    with open_device(device) as connected:
        for session in remove:
            connected.sessions.remove(session)
        kept = connected.sessions.list()

    def draw(console: Console) -> None:
        if not kept:
            console.print(f"there are no sessions on {device} yet")
            return
        table = Table("Id", "State", "Steps", "Checkpoint", "Size", "Fetched", "Why")
        for k in kept:
            state = "waiting for data" if k.state == "waiting" else k.state
            checkpoint = "none" if k.checkpoint is None else f"step {k.checkpoint}"
            table.add_row(k.id, state, f"{k.step}/{k.steps}", checkpoint, size(k.bytes), "yes" if k.fetched else "no", k.why)
        console.print(table)

    report([k.model_dump() | {"stream": k.stream and k.stream.hex()} for k in kept], draw)
