"""Streamed training beside its parts: the same training with its data on the board, and the transfer alone, over a paced link.

    python -m benchmarks.streaming [--steps 60] [--rates 4,8,16]

A real sshd on loopback, behind a proxy that lets so many MiB/s through. A streamed training cannot be faster than the slower of
its parts; the table shows by how much it is slower. All of it shares this machine's cores, the cryptography of both ends too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.links import Deadline
from edgekit.links.ssh import Connection, SshLink
from edgekit.program import Program
from examples.models import mobilenet_v2
from tests.host.home import Home
from tests.support.boards import flash
from tests.support.proxy import Proxy
from tests.support.sshd import MISSING, SSHD, lone_board

BATCH, SIZE = 8, 96
SPOOL = 8 << 20
MIB = 1 << 20


@click.command()
@click.option("--steps", default=60, show_default=True)
@click.option("--rates", default="4,8,16", show_default=True, help="MiB/s of the link, with commas.")
@click.option("--rounds", default=3, show_default=True)
def main(steps: int, rates: str, rounds: int) -> None:
    """Time a training and a transfer alone, then both together."""
    if SSHD is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as name, lone_board(Path(name)) as server:
        folder, proxy = Path(name), Proxy(server.port)
        (folder / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{proxy.port} {server.public_key}\n")
        os.chdir(folder)
        flash(f"ssh://127.0.0.1:{proxy.port}")
        try:
            _report([_measure(folder, server.home, proxy, steps, float(rate), rounds) for rate in rates.split(",")])
        finally:
            Home(server.home, ()).close()


def _measure(folder: Path, home: Path, proxy: Proxy, steps: int, rate: float, rounds: int) -> dict[str, float]:
    address = f"ssh://127.0.0.1:{proxy.port}"
    program, data = _work(folder, steps)
    with edgekit.connect(address, threads=1) as device:
        _train(device, program, data, stream=False)  # the data is on the board from here on
        computing = _median(rounds, lambda: _train(device, program, data, stream=False))
        proxy.rate = rate * MIB
        moving = _median(rounds, lambda: _transfer(address, home, data))
        both = _median(rounds, lambda: _train(device, program, data, stream=True))
    proxy.rate = None
    return {"rate": rate, "compute": computing, "transfer": moving, "streamed": both, "ratio": both / max(computing, moving)}


def _median(rounds: int, run: Callable[[], float]) -> float:
    return statistics.median(run() for _ in range(rounds))


def _work(folder: Path, steps: int) -> tuple[Program, Path]:
    """A network whose step takes about as long as its samples need at some MiB/s, and a data set of so many steps."""
    torch.manual_seed(0)
    example = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(10, (BATCH,))
    program = edgekit.compile(
        mobilenet_v2(0.35, 10).eval(), example, loss="cross_entropy", board="local", update="full", optimizer=edgekit.SGD(lr=1e-4)
    )
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        rng = np.random.default_rng(0)
        np.save(data / "inputs.npy", rng.standard_normal((steps * BATCH, 3, SIZE, SIZE), dtype=np.float32))
        np.save(data / "targets.npy", rng.integers(0, 10, steps * BATCH))
    return program, data


def _train(device: edgekit.Device, program: Program, data: Path, **options: Any) -> float:
    """Seconds from the start to the last record, without what leads to the start."""
    session = device.train(program, data, reset=True, spool=SPOOL if options["stream"] else None, **options)
    begin = time.perf_counter()
    session.result()
    return time.perf_counter() - begin


def _transfer(address: str, home: Path, data: Path) -> float:
    shutil.rmtree(home / "store", ignore_errors=True)
    with contextlib.closing(SshLink(Connection(address))) as link:
        begin = time.perf_counter()
        link.put_file(data, Deadline.after(600))
        return time.perf_counter() - begin


def _report(rows: list[dict[str, float]]) -> None:
    table = Table("link", "compute alone", "transfer alone", "streamed", "streamed / the slower")
    for row in rows:
        seconds = (f"{row[name]:.2f} s" for name in ("compute", "transfer", "streamed"))
        table.add_row(f"{row['rate']:g} MiB/s", *seconds, f"{row['ratio']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
