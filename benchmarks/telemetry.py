"""What watching costs a training: step time with nobody attached, with one `edgekit attach`, and with two.

    python -m benchmarks.telemetry [--rounds 10] [--seconds 4] [--size 96] [--json]

A real sshd on loopback, one session a network. Its windows are interleaved and in turn the first of a round; each is compared
with the unwatched one of its own round. The session host trains with one thread on a core of its own; the watchers and sshd
have the others, as a user's computer and a board's free cores would be. A window's time is divided by its steps, so what happens
between two steps counts too; its CPU time (/proc/PID/schedstat) leaves out what other programs took. A pull's price is CPU time
of the idle host.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import edgekit
from edgekit.program import Program
from examples.models import mobilenet_v2
from tests.support.boards import flash
from tests.support.sshd import MISSING, SSHD, Sshd, lone_board

WATCHERS = (0, 1, 2)
FRESH_NS = 300_000_000  #: a watcher that shows what is so young has caught up
PULLS = 2000
HOST_CORE = 0
FOR_EVER = 10_000_000
CALLS = "calls"  #: in a watcher's folder: a byte a pull
ATTACH = """
import sys
from edgekit.cli import main
from edgekit.protocol import Client

calls, plain = open(sys.argv.pop(1), "ab", 0), Client.records

def counted(*arguments):
    calls.write(b".")
    return plain(*arguments)

Client.records = counted
main()
"""


@dataclass(frozen=True)
class Work:
    """MobileNetV2 of a width at a size, ``last:2`` blocks updated, batch 1."""

    width: float
    size: int

    @property
    def name(self) -> str:
        return f"MobileNetV2-{self.width:g}, {self.size}×{self.size}"


WORKS = (Work(0.35, 32), Work(0.35, 96), Work(0.35, 224))


@dataclass(frozen=True)
class Result:
    """Of each window, by watchers: a step's time and the host's CPU time for it, in ms."""

    work: Work
    steps_ms: dict[int, list[float]]
    cpu_ms: dict[int, list[float]]
    pull_us: float  #: CPU time of the host for one pull of one record
    pulls: float  #: of one watcher, a second
    bridge: float  #: share of a core that sshd and `attach` take for one watcher, in percent

    def overhead(self, times: dict[int, list[float]], watchers: int) -> list[float]:
        """What watched windows take over the unwatched ones of their rounds, in percent."""
        return [100 * (a / b - 1) for a, b in zip(times[watchers], times[0], strict=True)]


@click.command()
@click.option("--rounds", default=10, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Of one window.")
@click.option("--size", "sizes", type=int, multiple=True, help="Only the networks of these image sizes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def main(rounds: int, seconds: float, sizes: tuple[int, ...], as_json: bool) -> None:
    """Measure, and print a table."""
    if SSHD is None:
        sys.exit(MISSING)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {HOST_CORE} or {HOST_CORE})
    with tempfile.TemporaryDirectory() as name, lone_board(Path(name)) as server:
        flash(server.address)
        works = [work for work in WORKS if not sizes or work.size in sizes]
        results = [_measure(server, Path(name) / f"{work.size}", work, rounds, seconds) for work in works]
    if as_json:
        print(json.dumps({"rounds": rounds, "seconds": seconds, "results": [asdict(r) for r in results]}, indent=2))
    else:
        Console(width=160).print(_table(results))


def _measure(server: Sshd, folder: Path, work: Work, rounds: int, seconds: float) -> Result:
    program = _program(work)
    inputs = np.random.default_rng(0).standard_normal((64, work.size, work.size, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    data = {"inputs": np.ascontiguousarray(inputs), "targets": np.arange(64) % 10}
    with edgekit.connect(server.address, threads=1) as device:
        session = device.train(program, data, epochs=FOR_EVER, cache="off", run_dir=folder / "begin")
        host, name = device.info.pid, str(session.id)
        session.detach()
    os.sched_setaffinity(host, {HOST_CORE})
    windows: list[tuple[int, int, int, int]] = []
    bridge: list[float] = []
    pulls: list[float] = []
    for number in range(rounds):
        for turn in range(len(WATCHERS)):
            watchers = WATCHERS[(number + turn) % len(WATCHERS)]
            with _watched(server.address, name, [folder / f"watcher-{i}" for i in range(watchers)]):
                calls = folder / "watcher-0" / CALLS
                count = calls.stat().st_size if watchers else 0
                before, cpu, begin = _cpu(_bridges()), _cpu([host]), time.monotonic_ns()
                time.sleep(seconds)
                cpu, end = _cpu([host]) - cpu, time.monotonic_ns()
                windows.append((watchers, begin, end, cpu))
                if watchers == 1:
                    bridge.append(100 * (_cpu(_bridges()) - before) / (end - begin))
                    pulls.append((calls.stat().st_size - count) / (end - begin) * 1e9)
    with edgekit.connect(server.address) as device:
        device.sessions.stop(name)
        records = device.sessions.fetch(name, folder / "end").records
        pull = _pull_us(device, name, host)
    times = np.array([r.time_ns for r in records])
    steps_ms: dict[int, list[float]] = {w: [] for w in WATCHERS}
    cpu_ms: dict[int, list[float]] = {w: [] for w in WATCHERS}
    for watchers, begin, end, cpu in windows:
        first, last = np.interp([begin, end], times, np.arange(len(times)))  # parts of steps count too
        steps_ms[watchers].append((end - begin) / (last - first) / 1e6)
        cpu_ms[watchers].append(cpu / (last - first) / 1e6)
    return Result(work, steps_ms, cpu_ms, pull, statistics.median(pulls), statistics.median(bridge))


def _program(work: Work) -> Program:
    torch.manual_seed(0)
    example = torch.randn(1, 3, work.size, work.size), torch.zeros(1, dtype=torch.int64)
    network = mobilenet_v2(work.width, 10)
    return edgekit.compile(network, example, loss="cross_entropy", board="local", update="last:2", optimizer=edgekit.SGD(lr=1e-4))


@contextmanager
def _watched(address: str, session: str, folders: list[Path]) -> Iterator[None]:
    """Inside, each folder is an `edgekit attach` that has caught up."""
    watchers = []
    for folder in folders:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", ATTACH, str(folder / CALLS), "attach", address, session, "--run-dir", str(folder)]
        watchers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        for folder in folders:
            while not _caught_up(folder / "steps.jsonl"):
                time.sleep(0.05)
        yield
    finally:
        for watcher in watchers:
            watcher.kill()  # the session goes on
            watcher.wait()
        while _bridges():
            time.sleep(0.05)


def _caught_up(steps: Path) -> bool:
    if not steps.exists() or steps.stat().st_size < 2000:
        return False
    with steps.open("rb") as file:
        file.seek(-2000, os.SEEK_END)
        line = file.read().split(b"\n")[-2]
    return time.monotonic_ns() - int(json.loads(line)["time_ns"]) < FRESH_NS


def _pull_us(device: Any, session: str, host: int) -> float:
    client = device.client
    before = _cpu([host])
    for number in range(PULLS):
        client.records(number, 1, session)
    return (_cpu([host]) - before) / PULLS / 1e3


def _bridges() -> list[int]:
    """The processes between a watcher and the host: `attach`, and the sshd that started it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, words = (folder / "comm").read_text(), (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        if name == "edgekit-runner\n" and words[1:2] == [b"attach"]:
            found += [int(folder.name), parent]
    return found


def _cpu(processes: list[int]) -> int:
    """Nanoseconds that processes have run, all their threads."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) for pid in processes for task in Path(f"/proc/{pid}/task").iterdir()
    )


def _table(results: list[Result]) -> Table:
    names = ("network", "ms a step", "watchers", "time", "CPU time", "a pull", "pulls a second", "of a core", "sshd, attach")
    table = Table(
        *names, box=SIMPLE, title="over the step of a session without watchers: median (10th … 90th percentile) of the rounds"
    )
    for result in results:
        table.add_row(result.work.name, f"{statistics.median(result.steps_ms[0]):.3f}")
        for watchers in WATCHERS[1:]:
            over = [_spread(result.overhead(times, watchers)) for times in (result.steps_ms, result.cpu_ms)]
            share = f"{result.pull_us * result.pulls / 1e4:.3f} %"
            price = (f"{result.pull_us:.0f} µs", f"{result.pulls:.1f}", share, f"{result.bridge:.1f} %")
            table.add_row("", "", str(watchers), *over, *(price if watchers == 1 else ()))
    return table


def _spread(percent: list[float]) -> str:
    low, middle, high = np.percentile(percent, [10, 50, 90])
    return f"{middle:+.2f} % ({low:+.2f} … {high:+.2f})"


if __name__ == "__main__":
    main()
