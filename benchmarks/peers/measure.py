"""One piece of work, by every peer that can: in rounds, one peer after the other, each in a process that stays."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

import edgekit
from benchmarks.peers.checks import Different, check_given, check_losses, check_moved, check_step
from benchmarks.peers.environments import PEERS, Peer
from benchmarks.peers.job import Job, Part
from benchmarks.peers.layers import describe
from benchmarks.peers.networks import CLASSES, FULL, SCHEMES, Work, make_network
from benchmarks.peers.process import Worker, WorkerError
from benchmarks.peers.quiet import DISTURBED, busy_seconds, wait_for_quiet
from edgekit.frontends.torch import capture
from edgekit.training.scheme import choose

T = TypeVar("T")

FALL = 0.005  #: of the loss, in a step
PREPARE_SECONDS = 300.0  #: the most that building, compiling and a first step may take
TURN_SECONDS = 120.0  #: the most that a turn may take, whatever was asked
PAUSE_SECONDS = 0.1  #: between turns, so that the last one's threads go to sleep
MOST_STEPS = 12  #: in a turn


@dataclass(frozen=True)
class Effort:
    """``rounds`` turns of each peer, of about ``turn_seconds`` and of 2 steps at least.

    ``patience_seconds`` is how long all turns of a piece of work together wait for other processes to end what they do.
    """

    rounds: int = 5
    turn_seconds: float = 1.0
    patience_seconds: float = 60.0


@dataclass(frozen=True)
class Turn:
    """Times of some steps in a row, and how many cores other processes kept busy meanwhile."""

    step_ns: list[int]
    others: float


@dataclass
class Figures:
    """What one peer took for one piece of work.

    Attributes:
        turns: those that were timed.
        idle_cores: how many cores it kept busy while others had their turn, at worst.
        growth_bytes: peak of a step over the process with its parameters loaded.
        process_bytes: peak of the whole process.
    """

    version: str
    losses: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    idle_cores: float = 0.0
    growth_bytes: int = 0
    process_bytes: int = 0

    @property
    def disturbed(self) -> int:
        """How many turns other processes disturbed."""
        return sum(turn.others > DISTURBED for turn in self.turns)

    @property
    def comparable(self) -> bool:
        """Whether there is a turn that nobody disturbed."""
        return self.disturbed < len(self.turns)

    @property
    def step_ns(self) -> list[int]:
        """Of the steps that count: those of turns that nobody disturbed, or all where there is none such."""
        return [ns for turn in self.turns if turn.others <= DISTURBED or not self.comparable for ns in turn.step_ns]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.step_ns) / 1e6

    @property
    def spread_ms(self) -> tuple[float, float]:
        """The 10th and 90th percentile."""
        ordered = sorted(self.step_ns)
        return ordered[len(ordered) // 10] / 1e6, ordered[len(ordered) * 9 // 10] / 1e6


@dataclass
class Result:
    """``failed`` says why a peer has no figures."""

    work: Work
    trained: int  #: parameters (arrays) of so many
    parameters: int
    figures: dict[str, Figures] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(work: Work, interpreters: Mapping[str, Path], effort: Effort, logs: Path, tell: Callable[[str], object]) -> Result:
    """Time one piece of work. A peer that fails, or does other work than the rest, is left out and said to be.

    Args:
        interpreters: the peers to run, each with its environment's Python.
        logs: folder for what the peers print.
        tell: called with what is being done now.
    """
    tell("compiling")
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(work, Path(folder))
        applying = {name: python for name, python in interpreters.items() if _applies(PEERS[name], work)}
        runners = {name: _Runner(name, python, job, logs / f"{name}.log") for name, python in applying.items()}
        group = _Group(Result(work, len(job.trained), len(job.parameters())), runners)
        try:
            group.prepare(tell)
            group.run(effort, tell)
            group.finish()
        except BaseException:  # an interruption too
            group.kill()
            raise
        group.close()
    return group.result


def _applies(peer: Peer, work: Work) -> bool:
    return not (peer.needs_frozen and work.update == FULL) and (peer.parts or work.update not in SCHEMES)


class _Group:
    """The peers that are still in it."""

    def __init__(self, result: Result, runners: dict[str, _Runner]) -> None:
        self.result = result
        self._runners = runners
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def prepare(self, tell: Callable[[str], object]) -> None:
        """Start all, as many at a time as there are cores, and do one step of each."""
        made = {name: self._pool.submit(runner.prepare) for name, runner in self._runners.items()}
        for name, runner in list(self._runners.items()):
            tell(f"preparing {runner.peer.title}")
            self._attempt(name, lambda runner: made[runner.name].result())
        self._attempt_all(lambda runner: check_step(self._reference.first, runner.first))

    def run(self, effort: Effort, tell: Callable[[str], object]) -> None:
        """Rounds, each of which begins with another peer. Round 0 warms up and finds out how long a step takes."""
        self._attempt_all(lambda runner: runner.warm(effort))
        patience = effort.patience_seconds
        for number in range(effort.rounds):
            names = list(self._runners)
            shift = number % max(len(names), 1)
            for name in names[shift:] + names[:shift]:
                tell(f"round {number + 1} of {effort.rounds}: {self._runners[name].peer.title}")
                patience -= self._attempt(name, partial(_Runner.turn, patience=patience)) or 0.0

    def finish(self) -> None:
        """Memory, and the checks of the whole run."""
        self._attempt_all(lambda runner: runner.finish())
        self._attempt_all(lambda runner: check_losses(self._reference.figures.losses, runner.figures.losses))
        self.result.figures = {name: runner.figures for name, runner in self._runners.items()}

    def close(self) -> None:
        list(self._pool.map(_Runner.close, self._runners.values()))
        self._pool.shutdown()

    def kill(self) -> None:
        """End all at once, whatever they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for runner in self._runners.values():
            runner.kill()

    @property
    def _reference(self) -> _Runner:
        """PyTorch, which the others are compared with; the first one where it is not there."""
        return self._runners.get("torch") or next(iter(self._runners.values()))

    def _attempt_all(self, do: Callable[[_Runner], object]) -> None:
        for name in list(self._runners):
            self._attempt(name, do)

    def _attempt(self, name: str, do: Callable[[_Runner], T]) -> T | None:
        runner = self._runners[name]
        try:
            return do(runner)
        except (WorkerError, Different) as error:
            self.result.failed[name] = str(error)
            del self._runners[name]
            runner.kill()
            return None


class _Runner:
    """One peer's process and what came of it."""

    def __init__(self, name: str, python: Path, job: Job, log: Path) -> None:
        self.name = name
        self.peer = PEERS[name]
        self.figures = Figures("")
        self.first: dict[str, Any] = {}  #: its parameters' states after one step
        self._python, self._job, self._log = python, job, log
        self._worker: Worker | None = None
        self._steps = 2

    def prepare(self) -> None:
        self._worker = Worker(self._python, self.peer.worker, self._job.folder, self._log)
        self.figures.version = self._worker.ready(PREPARE_SECONDS)
        check_given(self._job, self._ask("parameters"))
        self._train(1, PREPARE_SECONDS)
        self.first = self._ask("parameters")
        check_moved(self._job, self.first)

    def warm(self, effort: Effort) -> None:
        seconds = self._train(2)["step_ns"][-1] / 1e9
        self._steps = max(2, min(MOST_STEPS, int(effort.turn_seconds / seconds)))
        self._ask("watch")

    def turn(self, patience: float) -> float:
        """Seconds of ``patience`` that it took."""
        waited = wait_for_quiet(patience)
        start, before = time.monotonic(), busy_seconds()
        answer = self._train(self._steps)
        others = busy_seconds() - before - answer["cpu_seconds"]
        self.figures.turns.append(Turn(answer["step_ns"], max(others / (time.monotonic() - start), 0.0)))
        time.sleep(PAUSE_SECONDS)
        return waited

    def finish(self) -> None:
        memory = self._ask("memory")
        self.figures.growth_bytes, self.figures.process_bytes = memory["growth_bytes"], memory["process_bytes"]
        check_moved(self._job, self._ask("parameters"))

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()

    def _train(self, steps: int, timeout: float = TURN_SECONDS) -> dict[str, Any]:
        answer = self._ask("run", timeout, steps=steps)
        self.figures.losses += answer["losses"]
        self.figures.idle_cores = max(self.figures.idle_cores, answer["idle_cores"])
        return answer

    def _ask(self, what: str, timeout: float = TURN_SECONDS, **arguments: Any) -> dict[str, Any]:
        assert self._worker is not None
        return self._worker.ask({"do": what, **arguments}, timeout)


def make_job(work: Work, folder: Path, board: str = "local") -> Job:
    """The same network, batch and choice of parameters for all; edgekit's program is for ``board``."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(work.batch, 3, work.size, work.size, generator=generator)
    targets = torch.randint(CLASSES, (work.batch,), generator=generator)
    network = make_network(work.network, inputs)
    fractions = choose(capture(network, (inputs, targets), "cross_entropy"), work.update).fractions
    parts = _parts(network, fractions)
    lr = _learning_rate(network, fractions, parts, inputs, targets)
    program = edgekit.compile(network, (inputs, targets), board=board, update=work.update, optimizer=edgekit.SGD(lr=lr))
    layers, parameters = describe(network)
    job = Job(folder, layers, frozenset(fractions), lr, work.threads, parts)
    job.save(parameters, inputs.numpy(), targets.numpy())
    torch.save(network, job.module)
    program.save(job.program)
    return job


def _parts(network: nn.Module, fractions: Mapping[str, float]) -> dict[str, Part]:
    """Of the parameters that are trained in part (docs/update-schemes.md, "Globs and fractions")."""
    parts = {}
    for name, parameter in network.named_parameters():
        fraction = fractions.get(name, 1.0)
        if fraction < 1 and parameter.dim() > 1:
            axis = 0 if parameter.shape[1] == 1 else 1  # depthwise: by channel
            parts[name] = Part(axis, math.ceil(fraction * parameter.shape[axis]))
    return parts


def _learning_rate(
    network: nn.Module, trained: Container[str], parts: Mapping[str, Part], inputs: torch.Tensor, targets: torch.Tensor
) -> float:
    """With which a step takes FALL of the loss, to first order: enough to see, too little for rounding to grow."""
    parameters = {name: p for name, p in network.named_parameters() if name in trained}
    loss = nn.functional.cross_entropy(network(inputs), targets)
    gradients = zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
    used = (parts[name].of(g.numpy()) if name in parts else g.numpy() for name, g in gradients)
    return float(FALL * loss.item() / sum(np.square(g).sum() for g in used))
