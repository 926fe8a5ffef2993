"""Where words go: reports to stdout, as a drawing or as one JSON document; all else to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError
from rich.console import Console

from edgekit.errors import EdgekitError

_PIPED = 160  #: columns of a report that goes to no terminal

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the options that every command knows were set to."""

    json: bool = False
    debug: bool = False


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Settings).json |= value


def json_option(command: F) -> F:
    """``--json`` for a command that reports."""
    note = "One JSON document on stdout."
    return click.option("--json", is_flag=True, expose_value=False, callback=_set_json, is_eager=True, help=note)(command)


def stdout() -> Console:
    """For reports."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED)


def stderr() -> Console:
    """For progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def report(data: Any, draw: Callable[[Console], None]) -> None:
    """Give the command's result: ``data`` as JSON where that was asked for, else what ``draw`` draws."""
    if click.get_current_context().ensure_object(Settings).json:
        print_json(data)
    else:
        draw(stdout())


def print_json(data: Any) -> None:
    """Print strict JSON: numbers that JSON lacks become null."""
    click.echo(json.dumps(_strict(data), indent=2, allow_nan=False))


def print_error(error: EdgekitError) -> None:
    """What happened, why, and what to do next."""
    console = stderr()
    console.print(f"[bold red]error:[/] {plain(error.message)}", soft_wrap=True)
    if why := _why(error):
        console.print(f"[dim]  why:[/] {plain(why)}", soft_wrap=True)
    if error.hint:
        console.print(f"[bold] next:[/] {plain(error.hint)}", soft_wrap=True)


def error_json(error: EdgekitError) -> dict[str, Any]:
    """An error as a report."""
    return {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}}


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number for people; "unknown" where it is."""
    return "unknown" if value is None else f"{value:{form}}{unit}"


def path(place: Path) -> str:
    """A path for people: relative where it lies below the working folder."""
    return str(place.relative_to(Path.cwd())) if place.is_relative_to(Path.cwd()) else str(place)


def plain(text: str) -> str:
    """``text`` without markup."""
    return text.replace("[", r"\[")


def _why(error: EdgekitError) -> str:
    """The first line of the cause; empty where the message has told it already, as it does for files and schemas."""
    cause = error.__cause__
    if cause is None or isinstance(cause, (OSError, ValidationError)):
        return ""
    first = next(iter(str(cause).splitlines()), "")
    return "" if first in error.message else first


def _strict(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _strict(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_strict(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
