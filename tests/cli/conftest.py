"""The command line in a folder of its own, with a program and data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.cli.main import run
from tests.runner.programs import Classifier, sample_data

Run = Callable[..., tuple[int, str, str]]


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


@pytest.fixture
def edgekit(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: its exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def document(text: str) -> Any:
    """The one JSON document that ``text`` is."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
