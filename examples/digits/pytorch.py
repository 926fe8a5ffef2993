"""PyTorch as a peer, in a process of its own so that its memory can be told: the same model, data, batch and parameters.

Run as ``python -m examples.digits.pytorch JOB.pt``; it answers each line of stdin, a number of steps, with a line of JSON.
``Peer`` is the other side of that conversation.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Steps:
    """What a run of steps gave. Memory is the growth of the process's resident set over the loaded model and data."""

    losses: list[float]
    step_ns: list[int]
    growth_bytes: int
    process_bytes: int


class Peer:
    """A PyTorch process that trains ``model``'s named parameters on one repeated list of batches."""

    def __init__(
        self,
        model: nn.Module,
        batches: list[tuple[torch.Tensor, torch.Tensor]],
        parameters: Iterable[str],
        threads: int,
        sgd: dict[str, Any],
        channels_last: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        job = Path(self._folder.name) / "job.pt"
        work = {"model": model, "batches": batches, "parameters": list(parameters)}
        torch.save(work | {"threads": threads, "sgd": sgd, "channels_last": channels_last}, job)
        command = [sys.executable, "-m", "examples.digits.pytorch", str(job)]
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, steps: int) -> Steps:
        """Train on, ``steps`` steps more.

        Raises:
            RuntimeError: the process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the PyTorch process ended with {self._process.wait()}")
        return Steps(**json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _resident(field: str) -> int:
    """Bytes of VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


class _Trainer:
    """Eager PyTorch with frozen BatchNorm statistics (evaluation mode), as personalisation is done."""

    def __init__(self, job: dict[str, Any]) -> None:
        torch.set_num_threads(job["threads"])
        layout = torch.channels_last if job["channels_last"] else torch.contiguous_format
        self.model: nn.Module = job["model"].eval().to(memory_format=layout)
        chosen = set(job["parameters"])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.batches = [(x.to(memory_format=layout) if x.dim() == 4 else x, y) for x, y in job["batches"]]
        self.optimizer = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], **job["sgd"])
        self.done = 0
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
        self.loaded = _resident("VmRSS")

    def step(self) -> tuple[float, int]:
        x, y = self.batches[self.done % len(self.batches)]
        self.done += 1
        start = time.perf_counter_ns()
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        return value, time.perf_counter_ns() - start

    def run(self, steps: int) -> Steps:
        taken = [self.step() for _ in range(steps)]
        peak = _resident("VmHWM")
        return Steps([loss for loss, _ in taken], [ns for _, ns in taken], peak - self.loaded, peak)


def main() -> None:
    trainer = _Trainer(torch.load(sys.argv[1], weights_only=False))
    for line in sys.stdin:
        print(json.dumps(asdict(trainer.run(int(line)))), flush=True)


if __name__ == "__main__":
    main()
