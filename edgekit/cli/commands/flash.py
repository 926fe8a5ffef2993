"""``edgekit flash``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from edgekit.cli.options import FILE
from edgekit.cli.output import json_option, number, plain, report, size, stderr
from edgekit.cli.progress import TransferProgress
from edgekit.devices import full_address
from edgekit.errors import InputError
from edgekit.links import open_link, split_address
from edgekit.links.deadline import Deadline
from edgekit.links.serial import SerialLink
from edgekit.links.ssh import Connection
from edgekit.sessions.firmware_flash import FirmwareFlashed, execute_firmware
from edgekit.sessions.firmware_plan import FirmwarePlan, plan_firmware, plan_rollback_firmware
from edgekit.sessions.flash import Flashed, execute
from edgekit.sessions.flash_events import Done, Event, GoesOn, Started
from edgekit.sessions.flash_plan import Plan, plan_flash, plan_rollback

_LOOK_SECONDS = 60.0


@click.command("flash")
@click.argument("address")
@click.option("--dry-run", is_flag=True, help="Print the plan that would be carried out; change nothing.")
@click.option("--rollback", is_flag=True, help="Go back to the previous release.")
@click.option("--force", is_flag=True, help="Stop a session that runs on the board, with its checkpoint.")
@click.option("--runner", metavar="FILE", type=FILE, help="A runner, or signed firmware image, built elsewhere.")
@json_option
def command(address: str, dry_run: bool, rollback: bool, force: bool, runner: Path | None) -> None:
    """Bring this version's runner to the board at ADDRESS and switch to it: over SSH (ssh://[user@]host[:port]; no root, nothing
    else installed), or as firmware over a serial line (serial://…, socket://…)."""
    if rollback and runner is not None:
        raise InputError("--rollback takes no --runner", "leave one of them out")
    if runner is not None and not runner.is_file():
        raise InputError(f"there is no file {runner}", "`python -m edgekit.firmware.build runner TARGET` makes one")
    if split_address(full_address(address))[0] in ("serial", "socket"):
        _flash_line(address, dry_run, rollback, force, runner)
    else:
        _flash_ssh(address, dry_run, rollback, force, runner)


def _flash_ssh(address: str, dry_run: bool, rollback: bool, force: bool, runner: Path | None) -> None:
    with Connection(address) as connection, Drawing(stderr()) as drawing:
        deadline = Deadline.after(_LOOK_SECONDS)
        plan = plan_rollback(connection, deadline) if rollback else plan_flash(connection, deadline, runner, drawing.building)
        if dry_run:
            report(plan.as_dict(), lambda console: _draw_plan(console, plan))
            return
        flashed = execute(connection, plan, force=force, listen=drawing.listen)
    report(_as_dict(plan, flashed), lambda console: _draw_result(console, flashed))


def _flash_line(address: str, dry_run: bool, rollback: bool, force: bool, image: Path | None) -> None:
    def open_line() -> SerialLink:
        link = open_link(address)
        assert isinstance(link, SerialLink)
        return link

    with Drawing(stderr()) as drawing:
        deadline = Deadline.after(_LOOK_SECONDS)
        link = open_line()
        try:
            plan = plan_rollback_firmware(link, deadline) if rollback else plan_firmware(link, deadline, image, drawing.building)
        finally:
            link.close()
        if dry_run:
            report(plan.as_dict(), lambda console: _draw_firmware_plan(console, plan))
            return
        flashed = execute_firmware(open_line, plan, force=force, listen=drawing.listen)
    report(_as_dict(plan, flashed), lambda console: _draw_firmware_result(console, flashed))


class Drawing:
    """The steps on stderr, a bar while bytes move; use it in a ``with`` statement."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._moved = TransferProgress(console)

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        self._moved.stop()

    def building(self, done: int, total: int, what: str) -> None:
        """Show a file that was compiled."""
        if done == total:
            self._console.print(f"built {plain(what)} ({total} files)", soft_wrap=True)

    def listen(self, event: Event) -> None:
        """Show what happens."""
        if isinstance(event, Started):
            self._console.print(f"[dim]{event.number}/{event.total}[/] {plain(str(event.step))}", soft_wrap=True)
        elif isinstance(event, Done):
            if event.detail:
                self._console.print(f"    {plain(event.detail)}", soft_wrap=True)
        elif isinstance(event, GoesOn):
            self._console.print(f"    goes on at {event.done / 1024:.0f} of {event.total / 1024:.0f} KiB", soft_wrap=True)
        else:
            self._moved(event)


def _draw_plan(console: Console, plan: Plan) -> None:
    facts = plan.facts
    console.print(
        f"{plan.address}: {facts.system} {facts.kernel} on {facts.architecture}, {number(facts.cores, 'd', ' cores')}, memory "
        f"{size(facts.memory)}, free disk {size(facts.disk)}, in {plain(facts.home)} as {facts.user}",
        soft_wrap=True,
    )
    console.print(f"release now: {plan.found.current or 'none'}, before: {plan.found.previous or 'none'}", soft_wrap=True)
    _draw_steps(console, plan.steps)


def _draw_firmware_plan(console: Console, plan: FirmwarePlan) -> None:
    info = plan.info
    console.print(
        f"{plan.address}: {info.port}, firmware {info.version} for {info.architecture}, memory {size(info.memory)}",
        soft_wrap=True,
    )
    for slot in plan.found:
        words = ("active", "confirmed", "pending", "bootable")
        console.print(
            f"slot {slot.slot}: {slot.version} {slot.hash.hex()[:12]}… {' '.join(w for w in words if getattr(slot, w))}",
            soft_wrap=True,
        )
    _draw_steps(console, plan.steps)


def _draw_steps(console: Console, steps: Sequence[object]) -> None:
    for place, step in enumerate(steps, 1):
        console.print(f"{place}. {plain(str(step))}", soft_wrap=True)


def _draw_result(console: Console, flashed: Flashed) -> None:
    info = flashed.info
    console.print(
        f"{flashed.address}: runner {info.version} for {info.architecture} ({info.isa}, {info.cores} cores, {size(info.memory)})",
        soft_wrap=True,
    )
    console.print(f"release {flashed.release}; before: {flashed.previous or 'none'}", soft_wrap=True)


def _draw_firmware_result(console: Console, flashed: FirmwareFlashed) -> None:
    info = flashed.info
    console.print(
        f"{flashed.address}: firmware {info.version} for {info.architecture} ({info.isa}, {size(info.memory)}) in slot "
        f"{flashed.slot}",
        soft_wrap=True,
    )
    console.print(f"image {flashed.release}; before: {flashed.previous or 'the same'}", soft_wrap=True)


def _as_dict(plan: Plan | FirmwarePlan, flashed: Flashed | FirmwareFlashed) -> dict[str, object]:
    result = {"release": flashed.release, "previous": flashed.previous, "info": flashed.info.model_dump()}
    return {"plan": plan.as_dict(), "result": result}
