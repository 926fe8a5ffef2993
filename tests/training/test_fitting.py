"""Programs within a memory budget: smaller in ways that cost time, and the same training."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.errors import InputError
from edgekit.fitting import memory_bytes
from edgekit.graph.entry import Role
from edgekit.program import Program
from tests.support.simulator import Simulator

BATCH = 4


def net() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


EXAMPLE = (torch.randn(BATCH, 3, 16, 16), torch.arange(BATCH) % 5)


def compiled(memory: int | None) -> Program:
    return edgekit.compile(net(), EXAMPLE, optimizer=edgekit.SGD(lr=0.1, momentum=0.9), memory=memory)


def trained(program: Program, steps: int = 2) -> dict[str, np.ndarray]:
    """The states after some steps over the same samples, in the program's own batches."""
    board = Simulator(program)
    size, parts = program.header.batch, program.header.accumulate
    rng = np.random.default_rng(1)
    for _ in range(steps):
        inputs, targets = rng.standard_normal((BATCH, 3, 16, 16)).astype(np.float32), rng.integers(0, 5, BATCH).astype(np.int32)
        for part in range(parts):
            rows = slice(part * size, (part + 1) * size)
            board.run("train_step", {(Role.INPUT, 0): inputs[rows], (Role.TARGET, 0): targets[rows]})
        if parts > 1:
            board.run("update", {})
    return {t.name: board.state(t.name) for t in program.states if not t.name.endswith(".gradient")}


def test_what_fits_stays_as_it_is() -> None:
    plain = compiled(None)
    assert compiled(memory_bytes(plain)).sha256 == plain.sha256


@pytest.mark.slow
def test_smaller_budgets_take_more_time_and_train_the_same() -> None:
    plain = compiled(None)
    expected = trained(plain)
    seen = [plain]
    while True:
        try:
            program = compiled(memory_bytes(seen[-1]) - 1)
        except InputError as error:
            smallest = int(re.findall(r"budget of (\d+) bytes", error.hint)[0])
            break
        assert memory_bytes(program) < memory_bytes(seen[-1])
        assert program.header.batch * program.header.accumulate == BATCH
        for name, array in trained(program).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
        seen.append(program)
    flops = [sum(p.report().entries[0].flops.values()) * p.header.accumulate for p in seen]
    assert flops[1] > flops[0], "first by computing activations twice"
    assert (seen[1].header.batch, seen[-1].header.batch) == (BATCH, 1)
    assert memory_bytes(seen[-1]) == smallest
    assert memory_bytes(seen[-1]) < memory_bytes(plain) / 2


@pytest.mark.parametrize("memory", [0, -5])
def test_a_budget_is_a_size(memory: int) -> None:
    with pytest.raises(InputError, match="memory budget"):
        compiled(memory)
