"""For tests: a network namespace for a board, and the line to it, which loses, delays, repeats and reorders real packets.

The line is either a pair of TUN devices between which this process carries the packets, or the kernel's own ``netem``, which
many kernels come without. Both need root; where something is missing, the test is skipped and says what.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000  # <linux/if_tun.h>
_MTU = 1500
_QUEUE = 1 << 16  #: bytes that wait for a slow line; more are lost, as in a router


@dataclass(frozen=True)
class Trouble:
    """What the line does in each direction: ``delay`` in seconds, shares of the packets, ``rate`` in bytes a second.

    A packet that is reordered has no delay and so overtakes others.
    """

    delay: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    rate: float | None = None


class Namespace:
    """A network namespace; ``here`` and ``there`` are the addresses of its line's two ends."""

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            pytest.skip("needs iproute2 (Debian: iproute2)")
        number = os.getpid() % (1 << 14)
        self.name = f"edgekit-{number}"
        self.devices = (f"ekh{number}", f"ekb{number}")
        base = (10 << 24) + (213 << 16) + (number << 2)
        self.here, self.there = (".".join(str(base + end >> shift & 255) for shift in (24, 16, 8, 0)) for end in (1, 2))
        _need(["ip", "netns", "add", self.name], "a network namespace")

    def join(self) -> None:
        """Bring up both devices, the second of which moves into the namespace."""
        mine, other = self.devices
        ip("link", "set", other, "netns", self.name)
        ip("addr", "add", f"{self.here}/30", "dev", mine)
        ip("link", "set", mine, "up")
        for words in (
            ("addr", "add", f"{self.there}/30", "dev", other),
            ("link", "set", other, "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", self.name, *words)

    @property
    def enter(self) -> list[str]:
        """What runs a command inside."""
        return ["ip", "netns", "exec", self.name]

    def remove(self) -> None:
        subprocess.run(["ip", "link", "del", self.devices[0]], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Netem:
    """A line whose trouble the kernel makes."""

    def __init__(self, place: Namespace) -> None:
        self._place = place
        mine, other = place.devices
        _need(["ip", "link", "add", mine, "type", "veth", "peer", "name", other], "veth devices")
        place.join()
        _need(["tc", "qdisc", "add", "dev", mine, "root", "netem", "delay", "0ms"], "the kernel's sch_netem")
        _need([*place.enter, "tc", "qdisc", "add", "dev", other, "root", "netem", "delay", "0ms"], "the kernel's sch_netem")

    def make(self, trouble: Trouble) -> None:
        words = ["delay", f"{trouble.delay * 1000:g}ms"]
        for name in ("loss", "duplicate", "reorder"):
            if share := getattr(trouble, name):
                words += [name, f"{share * 100:g}%"]
        words += [] if trouble.rate is None else ["rate", f"{trouble.rate * 8:.0f}bit"]
        mine, other = self._place.devices
        for inside, device in (([], mine), (self._place.enter, other)):
            subprocess.run([*inside, "tc", "qdisc", "change", "dev", device, "root", "netem", *words], check=True)

    def cut(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        self.make(Trouble(loss=1.0))

    def close(self) -> None:
        pass


class Relay:
    """A line whose packets this process carries."""

    def __init__(self, place: Namespace) -> None:
        if not Path("/dev/net/tun").exists():
            pytest.skip("needs /dev/net/tun")
        self._ends = tuple(_tun(name) for name in place.devices)
        place.join()
        self._trouble = Trouble()
        self._down = self._closed = False
        self._chance = random.Random(5)
        self._free_at = [0.0, 0.0]  #: when each direction's slow line has sent what waits
        self._waiting: list[tuple[float, int, int, bytes]] = []  #: due, order, to which end, packet
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def make(self, trouble: Trouble) -> None:
        self._trouble, self._down = trouble, False

    def cut(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        self._down = True

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        for end in self._ends:
            os.close(end)

    def _carry(self) -> None:
        while not self._closed:
            due = self._waiting[0][0] - time.monotonic() if self._waiting else 0.1
            for end in select.select(self._ends, [], [], min(max(due, 0.0), 0.1))[0]:
                self._take(1 - self._ends.index(end), os.read(end, _MTU))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(self._waiting)
                with contextlib.suppress(OSError):  # a device that is down
                    os.write(self._ends[to], packet)

    def _take(self, to: int, packet: bytes) -> None:
        trouble = self._trouble
        if self._down or self._chance.random() < trouble.loss:
            return
        due = now = time.monotonic()
        if trouble.rate is not None:
            start = max(self._free_at[to], now)
            if (start - now) * trouble.rate > _QUEUE:
                return
            due = self._free_at[to] = start + len(packet) / trouble.rate
        if self._chance.random() >= trouble.reorder:
            due += trouble.delay
        for _ in range(2 if self._chance.random() < trouble.duplicate else 1):
            heapq.heappush(self._waiting, (due, next(self._order), to, packet))


def _tun(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(end)
        pytest.skip(f"needs TUN devices: {error.strerror}")
    return end


def _need(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs {what}: {done.stderr.strip()}")
