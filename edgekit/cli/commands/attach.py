"""``edgekit attach``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.device import open_device
from edgekit.cli.options import run_dir_option, session_arguments, streamed_data_option
from edgekit.cli.output import json_option
from edgekit.cli.watch import watch


@click.command("attach")
@session_arguments
@streamed_data_option
@run_dir_option
@json_option
def command(device: str, session: str, data: Path | None, run_dir: Path | None) -> None:
    """Watch the session ID that DEVICE keeps, from its first step on, to its end. Ctrl-C ends the watching; the board goes on.

    A session whose data is streamed goes on only while somebody brings it: give its --data.
    """
    with open_device(device) as connected:
        watch(connected.sessions.attach(session, run_dir, data))
