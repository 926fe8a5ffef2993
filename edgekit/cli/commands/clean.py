"""``edgekit clean``"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from edgekit.cli.device import open_device
from edgekit.cli.output import json_option, report, size, stderr
from edgekit.errors import InputError
from edgekit.sessions.room import Removed, Room
from edgekit.sessions.usage import UNUSED, Rules, Usage, Verdict

_KINDS = {
    "store": "store: programs, data, checkpoints that were sent",
    "sessions": "sessions",
    "work": "work: predictions, checkpoints asked for",
    "releases": "releases of the runner",
    "log": "log",
    "other": "the rest",
}


@click.command("clean")
@click.argument("device")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; change nothing.")
@click.option("--all-finished", is_flag=True, help="Remove every training that has ended, fetched and resumable or not.")
@click.option(
    "--unused",
    metavar="MINUTES",
    type=click.IntRange(min=0),
    default=UNUSED // 60,
    show_default=True,
    help="What was used since then stays: another host may be about to start with what it sent.",
)
@json_option
def command(device: str, dry_run: bool, all_finished: bool, unused: int) -> None:
    """Show what takes how much of DEVICE's disk, and remove what is not needed.

    That is what no training needs and nobody used lately, trainings that are done and were fetched whole, and old releases.
    The command may be interrupted at any time.
    """
    with open_device(device) as connected:
        room = connected.room
        if room is None:
            raise InputError(f"{device} stores nothing", "its runs are in the folder runs/ here")
        room.rules = Rules(60 * unused, all_finished)
        usage = room.look()
        verdicts = room.judge(usage)
        removed = [] if dry_run else _remove(room, verdicts)
        limit = room.limit(usage)
    facts = _as_dict(device, usage, limit, verdicts, removed, dry_run)
    report(facts, lambda console: _draw(console, usage, limit, verdicts, removed, dry_run))


def _remove(room: Room, verdicts: Sequence[Verdict]) -> list[Removed]:
    """Remove what may go, with a line that moves."""
    removed: list[Removed] = []
    columns = (TextColumn("removing"), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = stderr()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=sum(verdict.goes for verdict in verdicts))

        def note(one: Removed) -> None:
            removed.append(one)
            bar.update(task, advance=1, description=one.verdict.entry.path)

        room.remove(verdicts, note)
    return removed


def _draw(
    console: Console, usage: Usage, limit: int, verdicts: Sequence[Verdict], removed: Sequence[Removed], dry_run: bool
) -> None:
    table = Table("", Column("Size", justify="right"), Column("may go", justify="right"))
    for kind, words in _KINDS.items():
        of_kind = [verdict for verdict in verdicts if verdict.entry.kind == kind]
        if of_kind:
            going = sum(verdict.entry.bytes for verdict in of_kind if verdict.goes)
            table.add_row(words, size(sum(verdict.entry.bytes for verdict in of_kind)), size(going))
    table.add_row("together", size(usage.used), size(sum(v.entry.bytes for v in verdicts if v.goes)))
    console.print(table)
    console.print(f"free on the disk: {size(usage.free)}; edgekit takes at most {size(limit)}")
    refused = {one.verdict.entry.path for one in removed if not one.done}
    shown = [v for v in verdicts if v.goes or v.entry.kind in ("store", "sessions", "work", "releases")]
    if shown:
        list_ = Table("", Column("Size", justify="right"), Column("Path", overflow="fold"), "Why")
        for verdict in shown:
            list_.add_row(
                _word(verdict, refused, dry_run), size(verdict.entry.bytes), escape(verdict.entry.path), escape(verdict.why)
            )
        console.print(list_)
    if not dry_run:
        done = [one.verdict for one in removed if one.done]
        console.print(f"removed {len(done)}, {size(sum(verdict.entry.bytes for verdict in done))}")


def _word(verdict: Verdict, refused: set[str], dry_run: bool) -> str:
    if not verdict.goes:
        return "stays"
    if dry_run:
        return "may go"
    return "in use by now" if verdict.entry.path in refused else "removed"


def _as_dict(
    device: str, usage: Usage, limit: int, verdicts: Sequence[Verdict], removed: Sequence[Removed], dry_run: bool
) -> dict[str, Any]:
    done = {one.verdict.entry.path: one.done for one in removed}
    rows = [
        {
            "path": verdict.entry.path,
            "kind": verdict.entry.kind,
            "bytes": verdict.entry.bytes,
            "unused_s": verdict.entry.unused,
            "goes": verdict.goes,
            "why": verdict.why,
            "removed": done.get(verdict.entry.path, False),
        }
        for verdict in verdicts
    ]
    freed = sum(one.verdict.entry.bytes for one in removed if one.done)
    return {
        "device": device,
        "dry_run": dry_run,
        "used": usage.used,
        "free": usage.free,
        "limit": limit,
        "freed": freed,
        "entries": rows,
    }
