"""``edgekit train``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import edgekit
from edgekit.cli.device import open_device
from edgekit.cli.options import ANY_PATH, cache_options, detach_option, device_options, run_dir_option, stream_options
from edgekit.cli.output import json_option
from edgekit.cli.watch import detach, watch
from edgekit.devices import parse_size
from edgekit.errors import InputError, StorageError


@click.command("train")
@device_options
@click.option(
    "--data", metavar="DIR", type=ANY_PATH, help="Folder with inputs.npy and targets.npy; what the board lacks is sent."
)
@click.option(
    "--board-data",
    metavar="DIR",
    help="Such a folder that lies on the board already, and never leaves it (from the home folder there).",
)
@click.option("--epochs", default=1, show_default=True, type=click.IntRange(min=1), help="Times through the data.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after that many.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Samples in a new order each epoch.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of the order, and of dropout.")
@click.option("--checkpoint-every", metavar="STEPS", type=click.IntRange(min=1), help="Save a checkpoint that often.")
@click.option("--resume", metavar="PATH", type=ANY_PATH, help="Go on from a checkpoint, or from a run's folder.")
@stream_options
@cache_options
@click.option("--budget", metavar="SIZE", help="The most that edgekit may take of the board's disk, as 8GiB.")
@run_dir_option
@detach_option
@json_option
def command(
    device: str,
    program: Path,
    data: Path | None,
    board_data: str | None,
    threads: int | None,
    isa: str | None,
    board: str | None,
    budget: str | None,
    cache_budget: str | None,
    leave: bool,
    stream: bool | None,
    **options: Any,
) -> None:
    """Train MODEL.ekp on DEVICE: "local", this machine, or a board, "ssh://user@host".

    Ctrl-C stops the board and keeps what was trained. A board keeps a session also when the link is cut or this machine is
    switched off: it goes on, and `edgekit attach` watches it again. Data that does not fit on the board is streamed while it
    trains: such a session waits for data while this machine is away.
    """
    from edgekit.sessions import OnBoard

    dataset = OnBoard(board_data) if board_data is not None else data
    if dataset is None or (data is not None and board_data is not None):
        raise InputError("a session has one data set", "give --data DIR, a folder here, or --board-data DIR, one on the board")
    if leave and stream:
        raise InputError("a streamed session needs this computer: it brings the data", "leave out --detach, or --stream")
    loaded = edgekit.load(program)
    limit = None if budget is None else parse_size(budget)
    options["cache_budget"] = None if cache_budget is None else parse_size(cache_budget)
    with open_device(device, threads=threads, isa=isa, board=board, budget=limit) as connected:
        try:
            session = connected.train(loaded, dataset, stream=False if leave else stream, **options)
        except StorageError as error:
            _explain(error, leave and stream is None)
            raise
        if leave:
            detach(session, device)
        else:
            watch(session)


def _explain(error: StorageError, could_stream: bool) -> None:
    """What a full board has to do with --detach."""
    from edgekit.links.ssh.errors import RemoteDiskFull  # paramiko takes its time to import

    if could_stream and isinstance(error, RemoteDiskFull):
        error.hint += "; without --detach the data is streamed, a few shards at a time"
