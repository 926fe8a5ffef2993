"""``edgekit flash``"""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from edgekit.cli.options import FILE
from edgekit.cli.output import json_option, number, plain, report, size, stderr
from edgekit.cli.progress import TransferProgress
from edgekit.devices import full_address
from edgekit.errors import InputError, UnsupportedError
from edgekit.links import split_address
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import Connection
from edgekit.sessions.flash import Done, Event, Flashed, Started, execute
from edgekit.sessions.flash_plan import Plan, plan_flash, plan_rollback

_LOOK_SECONDS = 60.0


@click.command("flash")
@click.argument("address")
@click.option("--dry-run", is_flag=True, help="Print the plan that would be carried out; change nothing.")
@click.option("--rollback", is_flag=True, help="Go back to the previous release.")
@click.option("--force", is_flag=True, help="Stop a session that runs on the board, with its checkpoint.")
@click.option("--runner", metavar="FILE", type=FILE, help="A runner built elsewhere; by default the one of this version.")
@json_option
def command(address: str, dry_run: bool, rollback: bool, force: bool, runner: Path | None) -> None:
    """Bring the runner to the board at ADDRESS (ssh://[user@]host[:port]) and switch to it. No root, nothing else installed."""
    if rollback and runner is not None:
        raise InputError("--rollback takes no --runner", "leave one of them out")
    if runner is not None and not runner.is_file():
        raise InputError(f"there is no file {runner}", "`python -m edgekit.firmware.build runner TARGET` makes one")
    if split_address(full_address(address))[0] in ("serial", "socket"):
        raise UnsupportedError(
            f"{address}: firmware cannot be sent over a serial line yet",
            "`python -m edgekit.firmware.build firmware TARGET` makes the file for the board's own programmer",
        )
    with Connection(address) as connection, Drawing(stderr()) as drawing:
        deadline = Deadline.after(_LOOK_SECONDS)
        plan = plan_rollback(connection, deadline) if rollback else plan_flash(connection, deadline, runner, drawing.building)
        if dry_run:
            report(plan.as_dict(), lambda console: _draw_plan(console, plan))
            return
        flashed = execute(connection, plan, force=force, listen=drawing.listen)
    report(_as_dict(plan, flashed), lambda console: _draw_result(console, flashed))


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
    for place, step in enumerate(plan.steps, 1):
        console.print(f"{place}. {plain(str(step))}", soft_wrap=True)


def _draw_result(console: Console, flashed: Flashed) -> None:
    info = flashed.info
    console.print(
        f"{flashed.address}: runner {info.version} for {info.architecture} ({info.isa}, {info.cores} cores, {size(info.memory)})",
        soft_wrap=True,
    )
    console.print(f"release {flashed.release}; before: {flashed.previous or 'none'}", soft_wrap=True)


def _as_dict(plan: Plan, flashed: Flashed) -> dict[str, object]:
    result = {"release": flashed.release, "previous": flashed.previous, "info": flashed.info.model_dump()}
    return {"plan": plan.as_dict(), "result": result}
