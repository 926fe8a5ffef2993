"""``edgekit resume``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.device import open_device
from edgekit.cli.options import detach_option, run_dir_option, session_arguments
from edgekit.cli.output import json_option
from edgekit.cli.watch import detach, watch


@click.command("resume")
@session_arguments
@run_dir_option
@detach_option
@json_option
def command(device: str, session: str, run_dir: Path | None, leave: bool) -> None:
    """Go on with the session ID of DEVICE, which was interrupted, stopped or failed, from its last checkpoint.

    It ends with the same parameters, to the bit, as if it had never been interrupted.
    """
    with open_device(device) as connected:
        resumed = connected.sessions.resume(session, run_dir)
        if leave:
            detach(resumed, device)
        else:
            watch(resumed)
