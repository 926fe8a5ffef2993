"""Instructions of a training step on a counting board: edgekit's runner, and PyTorch."""

from __future__ import annotations

import io
import json
import statistics
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import edgekit
from benchmarks.instructions.board import CountingBoard
from benchmarks.instructions.root import NAME, PYTHON
from benchmarks.peers.checks import check_given, check_losses, check_moved, check_step
from benchmarks.peers.job import Job
from benchmarks.peers.process import ROOT
from benchmarks.peers.workers.serve import state_of

WARM = 1  #: step that is not counted: it touches memory for the first time, and PyTorch chooses its kernels
_ROOT = f"/home/{NAME}"
_WORK = f"{_ROOT}/tmp/work"  #: where the sources of the worker are, and the job
_SOURCES = (
    "__init__.py",
    "peers/__init__.py",
    "peers/job.py",
    "peers/workers/*.py",
    "instructions/__init__.py",
    "instructions/worker.py",
)
_MOUNTS = " && ".join(f"mount -o bind /{name} {_ROOT}/{name}" for name in ("dev", "proc", "sys"))


@dataclass(frozen=True)
class Steps:
    """``counts``: instructions of each step after the first; ``parameters``: as they were left (workers/serve.py)."""

    losses: tuple[float, ...]
    counts: tuple[int, ...]
    parameters: dict[str, dict[str, Any]]

    @property
    def median(self) -> float:
        return statistics.median(self.counts)


def run_edgekit(board: CountingBoard, job: Job, steps: int, runs: Path) -> Steps:
    """The steps' times are the runner's own. ``runs``: folder for what the session records."""
    program = edgekit.load(job.program)
    inputs, targets = job.batch()
    with edgekit.connect(board.device, threads=job.threads) as device:
        data = {"inputs": inputs, "targets": targets}
        session = device.train(program, data, epochs=WARM + steps, shuffle=False, reset=True, cache="off", run_dir=runs)
        records = list(session)
        module = torch.load(job.module, weights_only=False)
        session.write_back(module)
    given = job.parameters()
    states = {name: state_of(given[name], p.detach().numpy()) for name, p in module.named_parameters()}
    return Steps(tuple(r.loss for r in records), tuple(r.step_ns for r in records)[WARM:], states)


def bring_sources(board: CountingBoard) -> None:
    """PyTorch's worker, and what its root file system needs to be at home."""
    sources = sorted(path for pattern in _SOURCES for path in (ROOT / "benchmarks").glob(pattern))
    board.run(f"{_MOUNTS} && mkdir {_WORK} && tar -x -C {_WORK}", _archive(sources, ROOT))


def run_torch(board: CountingBoard, job: Job, steps: int, layout: str) -> tuple[str, Steps]:
    """How the wheel was built, and the steps in a ``layout`` (a class of worker.py). ``bring_sources`` comes first.

    Raises:
        RuntimeError: the worker fails; it says why.
        Different: it was not given the job's parameters.
    """
    files = [job.folder / name for name in ("job.json", "parameters.npz", "batch.npz")]
    board.run(f"mkdir -p {_WORK}/job && tar -x -C {_WORK}/job", _archive(files, job.folder))
    requests: list[dict[str, Any]] = [{"do": "parameters"}, {"do": "run", "steps": WARM + steps}, {"do": "parameters"}]
    python = f"cd /tmp/work && exec python{PYTHON} -m benchmarks.peers.workers benchmarks.instructions.worker:{layout} job"
    said = board.run(f"chroot {_ROOT} sh -c '{python}'", b"".join(json.dumps(r).encode() + b"\n" for r in requests))
    answers: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    if "error" in answers[-1]:
        raise RuntimeError(f"PyTorch on the board: {answers[-1]['error']}")
    ready, before, ran, after = answers
    check_given(job, before)
    return ready["ready"], Steps(tuple(ran["losses"]), tuple(ran["step_ns"][WARM:]), after)


def check_same(job: Job, reference: Steps, other: Steps) -> None:
    """Both did the same work.

    Raises:
        Different: they did not.
    """
    for steps in (reference, other):
        check_moved(job, steps.parameters)
    check_losses(reference.losses, other.losses)
    check_step(reference.parameters, other.parameters)


def _archive(files: Iterable[Path], root: Path) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for path in files:
            archive.add(path, str(path.relative_to(root)))
    return memory.getvalue()
