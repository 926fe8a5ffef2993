"""``edgekit stop``"""

from __future__ import annotations

import click

from edgekit.cli.device import open_device
from edgekit.cli.output import json_option, report


@click.command("stop")
@click.argument("device")
@click.argument("session", metavar="[ID]", required=False)
@json_option
def command(device: str, session: str | None) -> None:
    """Stop what runs on DEVICE, or the session ID, after the step under way. What was trained is kept; it may be resumed."""
    with open_device(device) as connected:
        ran = connected.sessions.stop(session)
    words = f"{device} was asked to stop; `edgekit sessions {device}` shows it" if ran else f"nothing runs on {device}"
    report({"stopped": ran}, lambda console: console.print(words))
