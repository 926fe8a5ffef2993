"""The entry point: the commands' table, and how errors leave (docs/exit-codes.md)."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click
from rich.logging import RichHandler

from edgekit.cli.output import Settings, error_json, print_error, print_json, stderr
from edgekit.errors import EdgekitError, InternalError

INTERRUPTED = 130  #: 128 + SIGINT, as shells count
TERMINATED = 143  #: 128 + SIGTERM

#: Commands, each in the module of its name, imported when it is asked for.
_COMMANDS = (
    *("compile", "inspect", "boards"),
    *("train", "evaluate", "predict", "bench"),
    *("sessions", "attach", "resume", "stop", "fetch", "clean"),
    *("flash", "trust", "devices", "virtual", "monitor", "doctor"),
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"edgekit.cli.commands.{cmd_name}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.version_option(package_name="edgekit")
@click.pass_obj
def cli(settings: Settings, debug: bool) -> None:
    """Train neural networks on edge boards."""
    settings.debug = debug
    handler = RichHandler(console=stderr(), show_path=debug, show_time=debug)
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("edgekit").setLevel(logging.DEBUG if debug else logging.INFO)


def main() -> NoReturn:
    """Run the command line; every way out has a named exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    settings = Settings()
    try:
        code = cli.main(arguments, prog_name="edgekit", obj=settings, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        stderr().print("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # who read the report has gone; nothing to tell
        return 0
    except EdgekitError as error:
        return _failed(error, settings)
    except Exception as error:
        bug = InternalError(f"{type(error).__name__}: {error}", "this is a bug of edgekit; `edgekit --debug …` shows where")
        bug.__cause__ = error
        return _failed(bug, settings)
    return code if isinstance(code, int) else 0  # what a command gave to context.exit


def _failed(error: EdgekitError, settings: Settings) -> int:
    if settings.json:
        print_json(error_json(error))
    if settings.debug:
        traceback.print_exception(error)
    print_error(error)
    return error.exit_code


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave in order on SIGTERM, so that the board is stopped and the run's folder complete."""
    del number, frame
    raise SystemExit(TERMINATED)
