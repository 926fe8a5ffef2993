"""A device with the real runner, and the softmax regression whose training NumPy can follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.program import Program
from edgekit.sessions import Device, connect
from tests.runner.programs import Classifier


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Device]:
    monkeypatch.chdir(tmp_path)  # runs go to tmp_path/runs
    with connect("local", threads=1) as connected:
        yield connected


@pytest.fixture
def classifier() -> Classifier:
    return Classifier()


@pytest.fixture
def program(classifier: Classifier) -> Program:
    return classifier.program()
