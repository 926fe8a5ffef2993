"""edgekit: its runner on this machine, which is the process whose memory counts; this one only talks to it.

The steps' times are the runner's own, the copying of the batch into its memory included. Frozen parameters lie in the program's
file, which the runner maps to be read only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import edgekit
from benchmarks.peers.job import Array, Job
from benchmarks.peers.workers.serve import Trainer
from edgekit.sessions.caching import Caching


class Peer(Trainer):
    """Computes all of every step, as the other peers do."""

    cache: Caching = "off"

    def __init__(self, job: Job) -> None:
        self.program = edgekit.load(job.program)
        self.module = torch.load(job.module, weights_only=False)
        inputs, targets = job.batch()
        self.data = {"inputs": inputs, "targets": targets}
        self.runs = tempfile.TemporaryDirectory()
        self.device = edgekit.connect("local", threads=job.threads)
        self.version = self.device.info.version
        self.device.client.load(str(job.program))
        self.session: edgekit.Session | None = None
        self.turns = 0

    @property
    def pid(self) -> int:
        return self.device.info.pid

    def run(self, steps: int) -> tuple[list[float], list[int]]:
        self.turns += 1
        folder = Path(self.runs.name) / str(self.turns)
        self.session = self.device.train(self.program, self.data, epochs=steps, shuffle=False, cache=self.cache, run_dir=folder)
        records = list(self.session)
        return [r.loss for r in records], [r.step_ns for r in records]

    def parameters(self) -> dict[str, Array]:
        if self.session is not None:
            self.session.write_back(self.module)
        return {name: p.detach().numpy() for name, p in self.module.named_parameters()}


class Cached(Peer):
    """Reads what the frozen beginning of the network made of the batch from the first epoch's file. That epoch is not timed."""

    cache: Caching = "float32"

    def run(self, steps: int) -> tuple[list[float], list[int]]:
        losses, times = super().run(steps)
        return losses, times[1:] or times
