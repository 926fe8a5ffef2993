"""``edgekit fetch``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.device import open_device
from edgekit.cli.options import run_dir_option, session_arguments
from edgekit.cli.output import json_option
from edgekit.cli.watch import report_session


@click.command("fetch")
@session_arguments
@run_dir_option
@json_option
def command(device: str, session: str, run_dir: Path | None) -> None:
    """Bring home what DEVICE has of the session ID: steps, program, parameters. One that runs goes on."""
    with open_device(device) as connected:
        fetched = connected.sessions.fetch(session, run_dir)
    report_session(fetched)
