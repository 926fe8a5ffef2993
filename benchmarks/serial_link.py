"""Bulk over a serial line of a given rate: COBS with a window, beside console framing with one request at a time.

    python -m benchmarks.serial_link [--baud 921600] [--kib 1024] [--rounds 3]

The board's side is its own C code as a process (firmware/tools/serial_board.c). Between it and the host each direction passes
baud / 10 bytes a second (a start and a stop bit around eight), no more and no sooner. The time is a user's: an upload's from its
first request to the answer that all is there; a download's ends with its digest checked against the board's.
"""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from edgekit.firmware.build import build
from rich.console import Console
from rich.table import Table

from edgekit.links import native_target
from edgekit.links.deadline import Deadline
from edgekit.links.serial.files import download, upload
from edgekit.links.serial.line import Line

_BITS = 10  #: of a byte on the line
_SLICE = 0.001  #: seconds between looks at how much may pass
_SECONDS = 600.0


def pace(source: int, to: int, rate: float) -> None:
    """Pass bytes on at ``rate`` a second, as a UART does: each leaves when its time on the line is over."""
    ends = time.monotonic()
    while select.select([source], [], [])[0]:
        data = os.read(source, 4096)
        if not data:
            break
        ends = max(ends, time.monotonic())
        while data:
            size = max(1, int(rate * _SLICE))
            ends += len(data[:size]) / rate
            time.sleep(max(0.0, ends - time.monotonic()))
            os.write(to, data[:size])
            data = data[size:]
    os.close(to)


class PipePort:
    """A port of two pipes."""

    def __init__(self, read: int, write: int) -> None:
        self.name = "paced pipe"
        self._read, self._write = read, write

    def write(self, data: bytes, deadline: Deadline) -> None:  # noqa: ARG002
        view = memoryview(data)
        while view:
            view = view[os.write(self._write, view) :]

    def read(self, seconds: float) -> bytes:
        return os.read(self._read, 65536) if select.select([self._read], [], [], max(0.0, seconds))[0] else b""

    def set_baud(self, baud: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        pass


@contextmanager
def paced_board(rate: float) -> Iterator[PipePort]:
    """A board at the end of a line of ``rate`` bytes a second."""
    process = subprocess.Popen([build("serial_board", native_target())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    (there_read, there_write), (back_read, back_write) = os.pipe(), os.pipe()
    for ends in ((there_read, os.dup(process.stdin.fileno())), (process.stdout.fileno(), back_write)):
        threading.Thread(target=pace, args=(*ends, rate), daemon=True).start()
    try:
        yield PipePort(back_read, there_write)
    finally:
        process.kill()
        process.wait()


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(cobs: bool, rate: float, size: int, rounds: int) -> dict[str, float]:
    """Median share of the line's rate that a file's own bytes get, by direction."""
    shares: dict[str, list[float]] = {"upload": [], "download": []}
    with paced_board(rate) as port:
        line = Line(port)
        if cobs:
            assert line.greet()
        else:
            line.most = line.window = 2048  # what other SMP tools find in the board's parameters
        for _ in range(rounds):
            data = os.urandom(size)
            deadline = Deadline.after(_SECONDS)
            took = seconds(lambda data=data, end=deadline: list(upload(line, "file", data, end)))
            shares["upload"].append(size / took / rate)
            took = seconds(lambda end=deadline: download(line, "file", end, lambda _: None))
            shares["download"].append(size / took / rate)
    return {name: statistics.median(values) for name, values in shares.items()}


@click.command()
@click.option("--baud", default=921600, show_default=True)
@click.option("--kib", default=1024, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(baud: int, kib: int, rounds: int, as_json: bool) -> None:
    """Measure both framings and print their shares of the line rate."""
    rate = baud / _BITS
    results = {name: measure(name == "cobs", rate, kib << 10, rounds) for name in ("cobs", "console")}
    if as_json:
        print(json.dumps({"baud": baud, "kib": kib, "rounds": rounds, "share_of_line_rate": results}))
        return
    table = Table("Framing", "Upload", "Download", title=f"{kib} KiB at {baud} baud: share of {rate / 1000:.1f} kB/s")
    for name, shares in results.items():
        table.add_row(name, *(f"{shares[way]:.1%} ({shares[way] * rate / 1000:.1f} kB/s)" for way in ("upload", "download")))
    Console().print(table)


if __name__ == "__main__":
    main()
