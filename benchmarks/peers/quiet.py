"""What else the machine does: a turn that other processes disturbed is not comparable with one that they left alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

DISTURBED = 0.2  #: cores that others may keep busy during a turn
_LOOK_SECONDS = 0.3


def busy_seconds() -> float:
    """Processor time of everything on this machine since it started, waiting for disks not counted."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft, stolen = fields
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(patience: float) -> float:
    """Wait until the machine does next to nothing, for so many seconds at most; how long it took."""
    start = time.monotonic()
    while time.monotonic() - start < patience:
        before = busy_seconds()
        time.sleep(_LOOK_SECONDS)
        if busy_seconds() - before < DISTURBED * _LOOK_SECONDS:
            break
    return time.monotonic() - start
