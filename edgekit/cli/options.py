"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click


class Mebibytes(click.FloatRange):
    """A number of MiB, as bytes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return int(super().convert(value, param, ctx) * 2**20)


F = TypeVar("F", bound=Callable[..., Any])

FILE: click.Path = click.Path(dir_okay=False, path_type=Path)
ANY_PATH: click.Path = click.Path(path_type=Path)
SPOOL = Mebibytes(min=0, min_open=True)


def device_options(command: F) -> F:
    """``DEVICE model.ekp`` and how the runner is started there."""
    return runner_options(click.argument("program", metavar="MODEL.ekp", type=FILE)(command))


def runner_options(command: F) -> F:
    """``DEVICE`` and how the runner is started there."""
    for add in (
        click.option("--board", metavar="ID", help="Profile that says where sensors are; the device's own by default."),
        click.option("--isa", metavar="NAME", help="Instruction set of the kernels; the best one by default."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads of the runner; all cores by default."),
        click.argument("device"),
    ):
        command = add(command)
    return command


def data_option(command: F) -> F:
    """``--data DIR``."""
    note = "Folder with inputs.npy and targets.npy."
    return click.option("--data", required=True, metavar="DIR", type=ANY_PATH, help=note)(command)


def checkpoint_option(command: F) -> F:
    """``--checkpoint``."""
    note = "Trained parameters: a checkpoint file, or a run's folder. Without it, the program's own."
    return click.option("--checkpoint", metavar="PATH", type=ANY_PATH, help=note)(command)


def run_dir_option(command: F) -> F:
    """``--run-dir DIR``."""
    note = "The run's folder; one in runs/ by default."
    return click.option("--run-dir", metavar="DIR", type=ANY_PATH, help=note)(command)


def detach_option(command: F) -> F:
    """``--detach``: the parameter is called ``leave``."""
    note = "Leave the session to the board at once; `edgekit attach` watches it later."
    return click.option("--detach", "leave", is_flag=True, help=note)(command)


def stream_options(command: F) -> F:
    """``--stream/--no-stream`` and ``--spool``: the latter in bytes for the command."""
    for add in (
        click.option("--spool", metavar="MIB", type=SPOOL, help="Most that streamed data takes on the board at a time."),
        click.option(
            "--stream/--no-stream",
            default=None,
            help="Bring the data in shards while the board computes; by default where it does not fit on the board.",
        ),
    ):
        command = add(command)
    return command


def cache_options(command: F) -> F:
    """``--cache`` and ``--cache-budget``: the latter as text."""
    for add in (
        click.option("--cache-budget", metavar="SIZE", help="Most that the cache may take, as 1GiB; a quarter of what is free."),
        click.option(
            "--cache",
            type=click.Choice(["auto", "off", "float32", "float16", "int8"]),
            default="auto",
            show_default=True,
            help="Keep what the frozen beginning makes of each sample: later epochs run only the rest.",
        ),
    ):
        command = add(command)
    return command


def streamed_data_option(command: F) -> F:
    """``--data DIR`` of a session whose data is streamed."""
    note = "The data set, where it is streamed: it is brought from here."
    return click.option("--data", metavar="DIR", type=ANY_PATH, help=note)(command)


def session_arguments(command: F) -> F:
    """``DEVICE ID``."""
    return click.argument("device")(click.argument("session", metavar="ID")(command))
