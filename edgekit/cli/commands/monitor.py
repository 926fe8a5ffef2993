"""``edgekit monitor``"""

from __future__ import annotations

import time

import click

from edgekit.cli.output import plain, stderr, stdout
from edgekit.devices import full_address
from edgekit.errors import InputError, LinkError
from edgekit.links import split_address
from edgekit.links.serial import Line, open_line

_RETRY_SECONDS = 0.5  #: before a line that is gone is opened again
_READ_SECONDS = 1.0


@click.command("monitor")
@click.argument("device")
@click.option("--once", is_flag=True, help="End when the line breaks, instead of opening it again.")
def command(device: str, once: bool) -> None:
    """Show what DEVICE, a microcontroller at a serial line, says for people, until Ctrl-C. A line that breaks is opened again."""
    address = full_address(device)
    if split_address(address)[0] not in ("serial", "socket"):
        raise InputError(f"{device} is not at a serial line", "a board over SSH writes its log to run/log in its edgekit folder")
    lost = False
    while True:
        try:
            line = open_line(address, _show)
            if lost:
                stderr().print(f"[dim]{plain(device)}: the line is back[/]")
            lost = False
            _follow(line)
        except LinkError as error:
            if once:
                raise
            if not lost:
                stderr().print(f"[dim]{plain(error.message)}; waiting for it to come back[/]", soft_wrap=True)
            lost = True
            time.sleep(_RETRY_SECONDS)


def _follow(line: Line) -> None:
    try:
        while True:
            line.receive(_READ_SECONDS)
    finally:
        line.close()


def _show(text: str) -> None:
    stdout().print(plain(text), soft_wrap=True)
