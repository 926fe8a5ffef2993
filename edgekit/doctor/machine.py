"""Checks that this machine can compile and train."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from edgekit.doctor.check import Check
from edgekit.errors import DeviceError, InputError

_PYTHON = (3, 11)
_ROOM = 1 << 30  #: bytes that a run and the build cache should find


def _python() -> str:
    if sys.version_info < _PYTHON:
        raise InputError(f"this is Python {platform.python_version()}, edgekit needs 3.11", "install a newer Python")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> str:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"PyTorch cannot be imported: {error}", "pip install 'torch>=2.9'") from error
    return str(torch.__version__)


def _compiler() -> str:
    try:
        return f"ziglang {metadata.version('ziglang')}"
    except metadata.PackageNotFoundError as error:
        raise InputError("the compiler is not installed", "pip install ziglang") from error


def _build() -> str:
    from edgekit.firmware.build import build
    from edgekit.links import native_target

    start = time.monotonic()
    path = Path(build("runner", native_target()))
    return f"{path} ({path.stat().st_size / 1024:.0f} KiB, {time.monotonic() - start:.1f} s)"


def _start() -> str:
    from edgekit.sessions import connect

    with connect("local") as device:
        info = device.info
    return f"runner {info.version}, {info.architecture}, {info.cores} cores, {info.memory / 2**30:.1f} GiB"


def _echo() -> str:
    from edgekit.sessions import connect

    with connect("local") as device:
        sent = "grüße from the host"
        start = time.perf_counter_ns()
        back = device.client.echo(sent)
        microseconds = (time.perf_counter_ns() - start) / 1e3
    if back != sent:
        raise DeviceError(f"{sent!r} came back as {back!r}", "are edgekit and the runner of one version?")
    return f"{microseconds:.0f} µs"


def _isa() -> str:
    from edgekit.sessions import connect

    with connect("local") as device:
        return f"{device.info.isa}, {device.info.threads} threads"


def _training() -> str:
    from edgekit.doctor.trial import train_a_little
    from edgekit.sessions import connect

    with connect("local") as device:
        return train_a_little(device, "local")


def _sensors() -> str:
    from edgekit.board import load_board

    readings = []
    paths = load_board("local").sensors.paths
    for name in ("temperature", "clock", "throttled", "power"):
        try:
            readings.append(f"{name} {Path(paths[name]).read_text().strip()}")
        except (KeyError, OSError):
            readings.append(f"{name} unknown")  # no fault: many machines have none
    return ", ".join(readings)


def _disk() -> str:
    from edgekit.firmware.build import cache_folder

    found = []
    for name, folder in (("here", Path.cwd()), ("cache", Path(cache_folder())), ("temporary", Path(tempfile.gettempdir()))):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        if not os.access(place, os.W_OK):
            raise InputError(f"{place} is not writable", "work in another folder, or set EDGEKIT_CACHE or TMPDIR")
        free = shutil.disk_usage(place).free
        if free < _ROOM:
            raise InputError(f"{place} has {free / 2**20:.0f} MiB left", "free some space: a run needs about 1 GiB")
        found.append(f"{name} {free / 2**30:.1f} GiB")
    return ", ".join(found)


CHECKS = (
    Check("python", _python),
    Check("torch", _torch),
    Check("compiler", _compiler),
    Check("runner build", _build, ("compiler",)),
    Check("runner start", _start, ("runner build",)),
    Check("echo", _echo, ("runner start",)),
    Check("instruction set", _isa, ("runner start",)),
    Check("training step", _training, ("torch", "runner start")),
    Check("sensors", _sensors),
    Check("disk", _disk),
)
