"""A small training for boards in trouble, and how it ends where nothing disturbs it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import edgekit
from edgekit.telemetry import read_run
from tests.runner.programs import Classifier, sample_data

EPOCHS, SEED = 40, 5
FOR_EVER = 1_000_000  #: epochs that no test waits for
STREAMED = {"stream": True, "spool": 18_000}  #: options of a training that comes in ten shards or so
PROGRAM = Classifier().program()


@dataclass(frozen=True)
class Undisturbed:
    """Losses and weights."""

    losses: list[float]
    weights: Any


def data() -> dict[str, Any]:
    inputs, targets = sample_data(22)
    return {"inputs": inputs, "targets": targets}


@cache
def undisturbed(epochs: int = EPOCHS) -> Undisturbed:
    """The same training on a runner that keeps nothing."""
    with tempfile.TemporaryDirectory() as folder, edgekit.connect("local", threads=1) as device:
        session = device.train(PROGRAM, data(), epochs=epochs, seed=SEED, run_dir=Path(folder) / "run")
        return Undisturbed([r.loss for r in session], session.state()["w"])


def train(device: edgekit.Device, epochs: int = EPOCHS, **options: Any) -> edgekit.Session:
    return device.train(PROGRAM, data(), epochs=epochs, seed=SEED, reset=True, **options)


def check(session: edgekit.Session, epochs: int = EPOCHS) -> None:
    """Every record is there exactly once, in the run's folder too, and losses and parameters are the same to the bit."""
    losses = undisturbed(epochs).losses
    assert session.ended_as == "done"
    assert [r.step for r in session.records] == list(range(1, len(losses) + 1))
    assert [r.loss for r in session.records] == losses
    assert read_run(session.folder).records == session.records
    np.testing.assert_array_equal(session.state()["w"], undisturbed(epochs).weights)


def only_run() -> Path:
    """The one run's folder that there is."""
    (folder,) = Path("runs").iterdir()
    return folder
