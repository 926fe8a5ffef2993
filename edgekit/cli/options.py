"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FILE: click.Path = click.Path(dir_okay=False, path_type=Path)
ANY_PATH: click.Path = click.Path(path_type=Path)


def device_options(command: F) -> F:
    """``DEVICE model.ekp`` and how the runner is started there."""
    for add in (
        click.option("--board", metavar="ID", help="Profile that says where sensors are; the device's own by default."),
        click.option("--isa", metavar="NAME", help="Instruction set of the kernels; the best one by default."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads of the runner; all cores by default."),
        click.argument("program", metavar="MODEL.ekp", type=FILE),
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


def session_arguments(command: F) -> F:
    """``DEVICE ID``."""
    return click.argument("device")(click.argument("session", metavar="ID")(command))
