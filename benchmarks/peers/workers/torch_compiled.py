"""torch.compile: forward, loss and backward as generated C++ code around oneDNN's convolutions, channels-last."""

from __future__ import annotations

import torch

from benchmarks.peers.job import Job
from benchmarks.peers.workers import torch_eager


class Peer(torch_eager.Peer):
    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.loss = torch.compile(self._loss, fullgraph=True, dynamic=False)
