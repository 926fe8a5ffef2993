"""What executes a bundle: one small adapter a backend."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit.backends import Capability
from edgekit.backends.cortex_m.capability import CORTEX_M
from edgekit.backends.cpu.capability import CPU
from edgekit.firmware.build import build

from tests.conformance.case import Bundle, Case

Image = tuple[bytes, bytes]  #: the arena and the state after a run


class Runner(Protocol):
    """A backend variant."""

    name: str

    def usable(self) -> bool:
        """Whether this machine can run it."""
        ...

    def supports(self, case: Case) -> bool:
        """Whether the backend says that it has a kernel for exactly this case."""
        ...

    def run(self, bundle: Bundle, threads: int, runs: int) -> list[Image]:
        """Run ``predict`` so often from the same start; what each run left."""
        ...


@dataclass(frozen=True)
class CpuRunner:
    """The CPU's or a microcontroller's kernels for one instruction set, in ``firmware/tools/run_once.c``."""

    isa: str
    target: str = "x86_64-linux"
    emulator: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        if self.isa == "m7":
            return f"m7-{self.target.replace('-linux-m7', '')}"
        return self.isa if self.target in ("x86_64-linux", "aarch64-linux") else f"{self.isa}-{self.target.rpartition('-')[2]}"

    @property
    def capability(self) -> Capability:
        return CORTEX_M if self.isa == "m7" else CPU

    def usable(self) -> bool:
        return self.isa in _listed(self.target, self.emulator)

    def supports(self, case: Case) -> bool:
        return self.capability.supports(case.node())

    def run(self, bundle: Bundle, threads: int, runs: int) -> list[Image]:
        with tempfile.TemporaryDirectory() as folder:
            program, arena, dump = (Path(folder) / name for name in ("program.ekp", "arena", "dump"))
            bundle.program.save(program)
            arena.write_bytes(bundle.arena)
            files = ("--arena", str(arena), "--dump", str(dump))
            options = ("--isa", self.isa, "--threads", str(threads), "--runs", str(runs))
            command = (*self.emulator, str(_executable(self.target)), str(program), "predict", *files, *options)
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                raise AssertionError(f"{self.name}: exit {done.returncode}\n{done.stdout}{done.stderr}")
            contents = dump.read_bytes()
        a, s = len(bundle.arena), len(bundle.state)
        assert len(contents) == runs * (a + s), "the dump has another size"
        return [(contents[i : i + a], contents[i + a : i + a + s]) for i in range(0, len(contents), a + s)]


@functools.cache
def _executable(target: str) -> Path:
    return build("run_once", target)


@functools.cache
def _listed(target: str, emulator: tuple[str, ...]) -> tuple[str, ...]:
    """The instruction sets that run_once can use here; none where the emulator is missing or this is another processor."""
    try:
        command = (*emulator, str(_executable(target)), "--list")
        return tuple(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    except OSError:
        return ()
