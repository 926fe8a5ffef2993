"""Runs the C tools on Programs, built with sanitizers where this machine has a compiler that has them."""

from __future__ import annotations

import functools
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.firmware.build import build

from edgekit.protocol.status import Status

SANITIZED = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1"}


@dataclass(frozen=True)
class Verdict:
    """What ek_program_open said."""

    status: Status
    text: str


@functools.cache
def executable(program: str) -> Path:
    """A program for this machine."""
    machine = platform.machine()
    if machine == "x86_64" and (shutil.which("clang") or shutil.which("gcc")):
        return build(program, "x86_64-linux-asan")
    return build(program, f"{machine}-linux")


def compile_test(name: str, sources: Sequence[Path], folder: Path, *flags: str, sanitizers: str = "address,undefined") -> Path:
    """``name``.c of this folder with sources of the firmware; with the system's compiler and sanitizers, or the wheel's."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    sanitize = [f"-fsanitize={sanitizers if compiler else 'undefined'}", "-fno-sanitize-recover=all"]
    common = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *sanitize, *flags]
    files = [str(path) for path in (*sources, Path(__file__).parent / f"{name}.c")]
    executable = folder / name
    subprocess.run([*command, *common, *files, "-lm", "-o", str(executable)], check=True)
    return executable


def verify(programs: Sequence[bytes], folder: Path, *options: str) -> list[Verdict]:
    """Open every program in one process; fails with the number of the one that crashes it.

    Raises:
        AssertionError: the process did not end well.
    """
    file = folder / "programs.bin"
    file.write_bytes(b"".join(struct.pack("<Q", len(p)) + p for p in programs))
    done = subprocess.run((executable("verify"), file, *options), capture_output=True, text=True, env=SANITIZED, timeout=120)
    verdicts = [Verdict(Status(int(status)), text) for status, text in (line.split("\t") for line in done.stdout.splitlines())]
    assert done.returncode == 0, f"program {len(verdicts) - 1} or the next: exit code {done.returncode}\n{done.stderr}"
    assert len(verdicts) == len(programs)
    return verdicts
