"""The board's clocks: the one that tells the time, against ours, and the one that steps are timed with."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgekit.errors import DeviceError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import Connection

_TOLERANCE = 60.0  #: seconds that two clocks may differ before somebody is misled
_READ = "date +%s; cut -d' ' -f1 /proc/uptime; sleep 1; cut -d' ' -f1 /proc/uptime"


@dataclass(frozen=True)
class Clocks:
    """``offset``: seconds that the board's time of day is ahead of ours, to about 1 s. ``advance``: what its monotonic clock
    counted while it was told to sleep for 1 s. None: unknown."""

    offset: float | None
    advance: float | None


def read_clocks(connection: Connection, deadline: Deadline) -> Clocks:
    """Look at both clocks; takes a second."""
    before = time.time()
    lines = connection.run(_READ, deadline).out.splitlines()
    ours = (before + time.time() - 1) / 2
    numbers = [_number(line) for line in [*lines, "", "", ""][:3]]
    told, first, second = numbers
    offset = None if told is None else told + 0.5 - ours
    return Clocks(offset, None if first is None or second is None else second - first)


def check_clock(name: str, clocks: Clocks) -> str:
    """In words.

    Raises:
        DeviceError: a clock is wrong, with what follows from it.
    """
    if clocks.advance is not None and clocks.advance <= 0:
        raise DeviceError(
            f"{name}: the board's monotonic clock does not advance: the times of steps mean nothing",
            "an emulated board with a counted clock? Restart the board",
        )
    if clocks.offset is None:
        return "unknown"
    if abs(clocks.offset) > _TOLERANCE:
        way = "ahead of" if clocks.offset > 0 else "behind"
        raise DeviceError(
            f"{name}: the board's clock is {_duration(abs(clocks.offset))} {way} ours. Training and the times of its steps are "
            "right all the same (the monotonic clock counts them); the dates of files and logs on the board are wrong, and "
            "downloads there may refuse every certificate",
            "on the board: `sudo timedatectl set-ntp true`, or `sudo date -s @$(date +%s)` with the number from here",
        )
    counted = "unknown" if clocks.advance is None else f"counted {clocks.advance:.2f} s in 1 s of sleep"
    return f"within {max(abs(clocks.offset), 1):.0f} s of ours; the monotonic clock {counted}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
