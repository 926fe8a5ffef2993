"""Workers that do not do the work they are asked for, for the checks to find."""

from __future__ import annotations

import time

import torch
from torch.nn import functional

from benchmarks.peers.job import Job
from benchmarks.peers.workers import torch_eager


class Idle(torch_eager.Peer):
    """Tells the loss, and updates nothing."""

    def step(self) -> float:
        return self.loss().item()


class Thorough(torch_eager.Peer):
    """Trains what is frozen, too."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        for parameter in self.net.values.values():
            parameter.requires_grad_()
        self.optimizer = torch.optim.SGD(self.net.values.values(), lr=job.lr)


class Greedy(torch_eager.Peer):
    """Trains whole what is to be trained in part."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.frozen = []


class Hasty(torch_eager.Peer):
    """Trains on half the batch: the right parameters move, along other gradients."""

    def _loss(self) -> torch.Tensor:
        half = len(self.targets) // 2
        return functional.cross_entropy(self.net(self.inputs)[:half], self.targets[:half])


class Tired(torch_eager.Peer):
    """Trains at first, then only tells losses."""

    steps = 0

    def step(self) -> float:
        self.steps += 1
        return super().step() if self.steps < 3 else self.loss().item()


class Broken(torch_eager.Peer):
    """Cannot be made."""

    def __init__(self, job: Job) -> None:
        raise ValueError(f"no such operator as {job.layers[0].op}")


class Slow(torch_eager.Peer):
    """Takes its time."""

    def step(self) -> float:
        time.sleep(60)
        return 0.0
