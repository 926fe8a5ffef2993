"""``edgekit virtual``"""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Column, Table

from edgekit.cli.output import json_option, plain, report, size, stderr
from edgekit.virtual import M7, MACHINE, MACHINES, Settings, Step, VirtualBoard, delete, start, stop, virtual_boards
from edgekit.virtual.lifecycle import BOOT_SECONDS
from edgekit.virtual.settings import MIB


@click.group("virtual")
def command() -> None:
    """Boards without hardware: emulated by QEMU, reached over SSH or a serial line like any other."""


@command.command("start")
@click.argument("machine", type=click.Choice(MACHINES), default=MACHINE)
@click.option("--name", metavar="NAME", help="The board's and the device's name; the machine's by default.")
@click.option("--cpus", type=click.IntRange(1, 8), help="Emulated cores; the profile's by default.")
@click.option("--memory", metavar="MiB", type=int, help="Main memory; the profile's by default.")
@click.option("--disk", metavar="MiB", type=int, help="Size of a new board's home; 2048 by default.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1; the last one, or a free one, by default.")
@click.option("--icount", is_flag=True, help="Let the board's clock count instructions, 1 ns each, on one core.")
@click.option("--update", is_flag=True, help="Ask the package sources for newer packages.")
@click.option("--timeout", metavar="SECONDS", type=float, default=BOOT_SECONDS, show_default=True, help="For the boot.")
@json_option
def start_command(
    machine: str,
    name: str | None,
    cpus: int | None,
    memory: int | None,
    disk: int | None,
    port: int | None,
    icount: bool,
    update: bool,
    timeout: float,
) -> None:
    """Build and boot a board, and make it a device: NAME."""
    settings = Settings.from_profile(name or machine, cpus, memory and memory * MIB, disk and disk * MIB, icount, port, machine)
    with stderr().status("starting") as status:
        started = start(settings, update, timeout, lambda step: status.update(_words(step)))
    board = started.board
    facts = {"board": board.facts(), "already_running": started.already, "boot_seconds": started.seconds}
    device = board.name if machine == M7 else f"ssh://{board.name}"
    how = f"runs already, since {_duration(board.uptime)}" if started.already else f"answers after {started.seconds:.1f} s"
    report(facts, lambda console: console.print(f"{board.name} {how}: {device} (port {board.port})", soft_wrap=True))


@command.command("stop")
@click.argument("name", default=MACHINE)
@click.option("--kill", is_flag=True, help="At once, as if its power was cut.")
@click.option("--delete", "forget", is_flag=True, help="Delete the board with its disk, too.")
@json_option
def stop_command(name: str, kill: bool, forget: bool) -> None:
    """Shut a board down. What is in its home stays for the next start."""
    with stderr().status(f"stopping {name}"):
        stopped = stop(name, kill=kill or forget)
        if forget:
            delete(name)
    facts = {"board": stopped.board.facts(), "how": stopped.how, "deleted": forget}
    report(facts, lambda console: console.print(f"{name} {stopped.how}{', and is deleted' if forget else ''}"))


@command.command("list")
@json_option
def list_command() -> None:
    """List the virtual boards, running or not."""
    boards = virtual_boards()
    report([board.facts() for board in boards], lambda console: _draw(console, boards))


def _draw(console: Console, boards: list[VirtualBoard]) -> None:
    if not boards:
        console.print("no virtual board yet; `edgekit virtual start` makes one")
        return
    table = Table(
        Column("Name", no_wrap=True), "State", "Port", "Process", "Uptime", "Cores", "Memory", Column("Folder", overflow="fold")
    )
    for b in boards:
        cores = f"{b.settings.cpus}{' (counted)' if b.settings.icount else ''}"
        pid = "" if b.pid is None else str(b.pid)
        table.add_row(
            b.name, b.state, str(b.port), pid, _duration(b.uptime), cores, size(b.settings.memory), plain(str(b.folder))
        )
    console.print(table)


def _duration(seconds: float | None) -> str:
    """Hours, minutes and seconds for people."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _words(step: Step) -> str:
    if not step.total:
        return step.what
    if step.what == "booting":
        return f"booting, {step.done} s"
    return f"{step.what}: {size(step.done)} of {size(step.total)}"
