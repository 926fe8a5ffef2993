"""``edgekit devices``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column, Table

from edgekit import devices
from edgekit.board import load_board
from edgekit.cli.output import json_option, plain, report, stderr
from edgekit.discovery import Found, Search, search
from edgekit.discovery.search import SECONDS
from edgekit.errors import InputError
from edgekit.links.serial.address import parse as parse_line
from edgekit.links.ssh.address import parse

_NO_LINK = "none"
_SOURCES = {"named": "named", "virtual": "virtual", "network": "network", "usb": "USB"}


@click.group("devices", invoke_without_command=True)
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(0.1, 60), default=SECONDS, show_default=True, help="For the network."
)
@json_option
@click.pass_context
def command(context: click.Context, timeout: float) -> None:
    """List boards: those with a name, virtual ones, SSH servers on the network, USB serial ports."""
    if context.invoked_subcommand is not None:
        return
    with stderr().status("looking around"):
        result = search(timeout)
    report(asdict(result), lambda console: _draw(console, result))


@command.command("add")
@click.argument("name")
@click.argument("address")
@click.option("--identity", metavar="FILE", help="The private key to log in with.")
@click.option("--board", metavar="ID", help="The board's profile; `edgekit boards` lists them.")
@click.option("--budget", metavar="SIZE", help="The most that edgekit may take of its disk, as 8GiB; a share by default.")
@json_option
def add_command(name: str, address: str, identity: str | None, board: str | None, budget: str | None) -> None:
    """Give the device at ADDRESS a NAME, or change what the name means: ssh://[user@]host[:port], serial://VID:PID/NUMBER."""
    device = _device(name, address, identity, board, budget)
    replaced = name in devices.load_devices()
    devices.add(device)
    words = f"{name} is now {address}" if replaced else f"{name} is {address}"
    report(
        {"device": device.model_dump(), "replaced": replaced},
        lambda console: console.print(f"{plain(words)}; `edgekit doctor {name}` checks the way to it", soft_wrap=True),
    )


@command.command("remove")
@click.argument("name")
@json_option
def remove_command(name: str) -> None:
    """Forget a NAME. The device itself stays as it is."""
    known = devices.load_devices()
    if name not in known:
        raise InputError(f"there is no device {name!r}", f"known: {', '.join(known) or 'none'}")
    devices.remove(name)
    report({"removed": name}, lambda console: console.print(f"{name} is forgotten"))


def _device(name: str, address: str, identity: str | None, board: str | None, budget: str | None) -> devices.KnownDevice:
    """A device whose facts are checked as far as they can be from here."""
    if name == "local":
        raise InputError("'local' is this machine's name already", "choose another")
    if address.startswith(("serial:", "socket:")):
        parse_line(address)
    else:
        parse(address)
    if board is not None:
        load_board(board)
    if identity is not None and not Path(identity).expanduser().is_file():
        raise InputError(f"there is no key {identity}", "`ssh-keygen -t ed25519 -f FILE` makes one")
    if identity is not None and not identity.startswith("~"):
        identity = str(Path(identity).absolute())
    if budget is not None:
        devices.parse_size(budget)
    try:
        return devices.KnownDevice(name=name, address=address, identity=identity, board=board, budget=budget)
    except ValidationError as error:
        raise InputError(f"{name!r} is no name for a device", "letters, digits, - and _") from error


def _draw(console: Console, result: Search) -> None:
    if result.found:
        table = Table(Column("Name", no_wrap=True), "Found", Column("Address", no_wrap=True), "Link", Column("", overflow="fold"))
        for device in result.found:
            table.add_row(
                plain(device.name), _SOURCES[device.source], plain(device.address), device.link or _NO_LINK, plain(_facts(device))
            )
        console.print(table)
    else:
        console.print("no device; `edgekit devices add NAME ADDRESS` gives one a name, `edgekit virtual start` makes one")
    for note in result.notes:
        console.print(f"note: {plain(note)}", soft_wrap=True)


def _facts(device: Found) -> str:
    return ", ".join(f"{name} {value}" for name, value in device.facts.items() if value is not None)
