"""A folder of its own for the command line, with a program and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runner.programs import Classifier, sample_data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds model.ekp and data/ (22 samples), and is the working folder."""
    monkeypatch.chdir(tmp_path)
    Classifier().program().save("model.ekp")
    write_data(Path("data"))
    return tmp_path


def write_data(to: Path, **other: Any) -> None:
    """The classifier's data, or other arrays by name."""
    inputs, targets = sample_data(22)
    to.mkdir(exist_ok=True)
    for name, array in {"inputs": inputs, "targets": targets, **other}.items():
        np.save(to / f"{name}.npy", array)
