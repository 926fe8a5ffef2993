"""The same interface on another processor: the aarch64 runner under qemu's user emulation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgekit.firmware.build import build

from edgekit.errors import InputError
from edgekit.program import Architecture
from edgekit.sessions import Device, connect
from tests.runner.programs import Classifier, sample_data

QEMU = shutil.which("qemu-aarch64-static")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(QEMU is None, reason="needs qemu-user-static")]


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Device]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_RUNNER", f"{QEMU} {build('runner', 'aarch64-linux')}")
    with connect("local", threads=2, board="generic-aarch64") as device:
        yield device


def test_training_follows_numpy(board: Device) -> None:
    assert (board.info.architecture, board.info.isa) == ("aarch64", "neon_dotprod")
    inputs, targets = sample_data(16)
    classifier = Classifier()
    program = classifier.program(Architecture.AARCH64)
    session = board.train(program, {"inputs": inputs, "targets": targets}, epochs=2, shuffle=False)
    order = [list(range(i, i + 4)) for _ in range(2) for i in range(0, 16, 4)]
    losses, w, _ = classifier.train(inputs, targets, order)
    np.testing.assert_allclose([r.loss for r in session], losses, rtol=1e-5)
    np.testing.assert_allclose(session.state()["w"], w, rtol=1e-4, atol=1e-6)


def test_this_machines_program_is_refused(board: Device) -> None:
    inputs, targets = sample_data(16)
    with pytest.raises(InputError, match=r"for x86_64.*has aarch64"):
        board.train(Classifier().program(Architecture.X86_64), {"inputs": inputs, "targets": targets})
