"""``edgekit resume``"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.device import open_device
from edgekit.cli.options import detach_option, run_dir_option, session_arguments, streamed_data_option
from edgekit.cli.output import json_option
from edgekit.cli.watch import detach, watch
from edgekit.errors import InputError


@click.command("resume")
@session_arguments
@streamed_data_option
@run_dir_option
@detach_option
@json_option
def command(device: str, session: str, data: Path | None, run_dir: Path | None, leave: bool) -> None:
    """Go on with the session ID of DEVICE, which was interrupted, stopped or failed, from its last checkpoint.

    It ends with the same parameters, to the bit, as if it had never been interrupted.
    """
    if leave and data is not None:
        raise InputError("a streamed session needs this computer: it brings the data", "leave out --detach")
    with open_device(device) as connected:
        resumed = connected.sessions.resume(session, run_dir, data)
        if leave:
            detach(resumed, device)
        else:
            watch(resumed)
