"""Checks of a runner that answers, whatever link leads to it."""

from __future__ import annotations

import time

from edgekit.board import GENERAL, load_board
from edgekit.devices import find
from edgekit.doctor.check import NotNow
from edgekit.errors import BusyError, DeviceError
from edgekit.protocol import Client
from edgekit.protocol.messages import LIVE
from edgekit.sessions import Device


def echo(client: Client) -> float:
    """Milliseconds there and back.

    Raises:
        DeviceError: something else comes back.
    """
    sent = "grüße from the host"
    start = time.perf_counter_ns()
    back = client.echo(sent)
    if back != sent:
        raise DeviceError(f"{sent!r} came back as {back!r}", "are edgekit and the runner of one version?")
    return (time.perf_counter_ns() - start) / 1e6


def activity(client: Client) -> str:
    """What runs on the board."""
    status = client.status()
    if status.state not in LIVE:
        return "no session runs"
    return f"{status.session or 'a session that is not kept'} runs (step {status.step} of {status.steps})"


def train(client: Client, given: str) -> str:
    """Train a small network on the device ``given``; how its loss went."""
    from edgekit.doctor.trial import train_a_little  # NumPy and PyTorch take their time

    if client.status().state in LIVE:
        raise NotNow(f"a session runs on the board: {activity(client)}")
    known = find(given)
    info = client.info()
    board = load_board(known.board if known and known.board else GENERAL.get(info.architecture, "generic-aarch64"))
    try:
        with Device(client.link, board) as device:
            return train_a_little(device, board)
    except BusyError as error:
        raise NotNow(f"a session began on the board meanwhile: {error.message}") from error
