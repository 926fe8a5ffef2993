"""A microcontroller's runner as a process (firmware/tools/serial_board.c), and lines to it that lose, change and double bytes."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from edgekit.errors import LinkLost
from edgekit.links.deadline import Deadline
from tests.firmware.tools import SANITIZED, executable

Kind = Literal["drop", "flip", "double", "cut"]
Way = Literal["there", "back"]


@dataclass
class Fault:
    """What happens to byte number ``place`` of one direction, once."""

    kind: Kind
    way: Way
    place: int
    happened: bool = False

    def strike(self, data: bytes, first: int, way: Way) -> tuple[bytes, bool]:
        """``data``, which begins at byte ``first``, and whether the line is cut behind it."""
        at = self.place - first
        if self.happened or way != self.way or not 0 <= at < len(data):
            return data, False
        self.happened = True
        if self.kind == "cut":
            return data[:at], True
        if self.kind == "drop":
            return data[:at] + data[at + 1 :], False
        if self.kind == "double":
            return data[: at + 1] + data[at:], False
        return data[:at] + bytes([data[at] ^ 1 << self.place % 8]) + data[at + 1 :], False


@dataclass
class Wire:
    """A process and what is on its way; it outlives the ports that use it."""

    process: subprocess.Popen[bytes]
    fault: Fault | None = None
    count: dict[Way, int] = field(default_factory=lambda: {"there": 0, "back": 0})

    def pass_on(self, data: bytes, way: Way) -> tuple[bytes, bool]:
        first = self.count[way]
        self.count[way] += len(data)
        return self.fault.strike(data, first, way) if self.fault else (data, False)


class WirePort:
    """A port to the process; once it is cut, nothing goes through it any more."""

    def __init__(self, wire: Wire) -> None:
        self.name = "wire"
        self._wire = wire
        self._open = True

    def write(self, data: bytes, deadline: Deadline) -> None:  # noqa: ARG002
        self._check()
        passed, cut = self._wire.pass_on(data, "there")
        assert self._wire.process.stdin is not None
        self._wire.process.stdin.write(passed)
        self._open = not cut
        self._check()

    def read(self, seconds: float) -> bytes:
        self._check()
        assert self._wire.process.stdout is not None
        descriptor = self._wire.process.stdout.fileno()
        if not select.select([descriptor], [], [], max(0.0, seconds))[0]:
            return b""
        data = os.read(descriptor, 65536)
        assert data, "the board's process ended"
        passed, cut = self._wire.pass_on(data, "back")
        self._open = not cut
        if cut and not passed:
            self._check()
        return passed

    def set_baud(self, baud: int) -> bool:  # noqa: ARG002
        return True

    def close(self) -> None:
        self._open = False

    def _check(self) -> None:
        if not self._open:
            raise LinkLost("wire: cut")


@contextmanager
def board(kib: int = 4096) -> Iterator[Wire]:
    """A board that is on."""
    process = subprocess.Popen(
        (executable("serial_board"), str(kib)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=SANITIZED
    )
    try:
        yield Wire(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
