"""A worker's side of the conversation: it makes a Trainer, then answers requests, a line of JSON each.

It says {"ready": version} first, or {"error": text} at any time, which ends it. Then:

    {"do": "run", "steps": 6}  →  {"losses": [6], "step_ns": [6], "cpu_seconds": processor time that this took,
                                   "idle_cores": cores that it kept busy since the answer before}
    {"do": "memory"}           →  {"growth_bytes": peak since "watch" over the loaded process, "process_bytes": that peak}
    {"do": "watch"}            →  {}: peaks count from here on
    {"do": "parameters"}       →  {NAME: {"sha256": of its bytes, "change": norm of its difference to the job's,
                                          "frozen_change": the same of what is not trained of it}}

stdin's end ends it. What libraries print goes to stderr.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.job import Array, Job, Part


class Trainer:
    """Base of the peers: it trains one job's parameters on its batch."""

    version = ""  #: of the framework

    @property
    def pid(self) -> int:
        """The process that computes."""
        return os.getpid()

    def step(self) -> float:
        """One update; returns the loss before it."""
        raise NotImplementedError

    def run(self, steps: int) -> tuple[list[float], list[int]]:
        """Losses and nanoseconds of so many steps."""
        losses, times = [], []
        for _ in range(steps):
            start = time.perf_counter_ns()
            losses.append(self.step())
            times.append(time.perf_counter_ns() - start)
        return losses, times

    def parameters(self) -> dict[str, Array]:
        """All of the job's parameters as they are now, in its layouts."""
        raise NotImplementedError


def serve(make: Callable[[], Trainer], job: Job) -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        worker = _Worker(make(), job)
        answer({"ready": worker.trainer.version})
        for line in sys.stdin:
            answer(worker.answer(json.loads(line)))
            worker.rest()
    except Exception as error:  # whatever it is, the driver shall show it
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})


class _Worker:
    def __init__(self, trainer: Trainer, job: Job) -> None:
        self.trainer = trainer
        self._job = job
        self._loaded = resident(trainer.pid, "VmRSS")
        self.rest()

    def rest(self) -> None:
        """Note how much was computed until now: what is added before the next request was not asked for."""
        self._since = time.monotonic(), self._cpu()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "run":
                idle = self._idle_cores()
                before = self._cpu()
                losses, times = self.trainer.run(request["steps"])
                return {"losses": losses, "step_ns": times, "cpu_seconds": self._cpu() - before, "idle_cores": idle}
            case "watch":
                Path(f"/proc/{self.trainer.pid}/clear_refs").write_text("5")  # the high-water mark starts here
                return {}
            case "memory":
                peak = resident(self.trainer.pid, "VmHWM")
                return {"growth_bytes": peak - self._loaded, "process_bytes": peak}
            case "parameters":
                given, parts = self._job.parameters(), self._job.parts
                return {name: state_of(given[name], array, parts.get(name)) for name, array in self.trainer.parameters().items()}
        raise ValueError(f"unknown request {request}")

    def _cpu(self) -> float:
        return sum(map(_cpu_seconds, {self.trainer.pid, os.getpid()}))

    def _idle_cores(self) -> float:
        then, used = self._since
        waited = time.monotonic() - then
        if waited < 0.2:  # the system counts hundredths of a second
            return 0.0
        return (self._cpu() - used) / waited


def state_of(before: Array, now: Array, part: Part | None = None) -> dict[str, Any]:
    """What is said of a parameter: its digest, and how far it moved; ``part``: of it to be trained, None: all."""
    if before.shape != now.shape:
        raise ValueError(f"a parameter of {before.shape} came back as {now.shape}")
    change = (now - before).astype(np.float64)
    frozen = 0.0 if part is None else float(np.abs(change * (1 - part.mask(change))).max())
    return {"sha256": digest(now), "change": float(np.linalg.norm(change)), "frozen_change": frozen}


def digest(array: Array) -> str:
    """SHA-256 of an array's bytes in order of its indices."""
    return hashlib.sha256(np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()


def resident(pid: int, field: str) -> int:
    """Bytes of a process's VmRSS (now) or VmHWM (the most)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
