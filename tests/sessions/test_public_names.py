"""The shape that the Python interface promises, used as a user would."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import edgekit


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    first = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
    net = nn.Sequential(*first, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    with torch.no_grad():
        net(torch.randn(64, 3, 8, 8) * 2 + 1)  # BatchNorm's statistics
    return net.eval()


def test_the_whole_way_follows_pytorch(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    inputs, targets = torch.randn(32, 3, 8, 8), torch.randint(0, 4, (32,))
    program = edgekit.compile(
        model,
        (inputs[:8], targets[:8]),
        loss="cross_entropy",
        board="local",
        update="full",
        optimizer=edgekit.SGD(lr=0.05, momentum=0.9),
    )
    program.save("model.ekp")
    program = edgekit.load("model.ekp")
    assert program.summary()
    dataset = {"inputs": inputs, "targets": targets}

    reference = copy.deepcopy(model)
    trained = [p for name, p in reference.named_parameters() if name != "1.weight"]  # the words leave BatchNorm's scale alone
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    losses = []
    for _ in range(3):
        for start in range(0, 32, 8):
            optimizer.zero_grad()
            loss = functional.cross_entropy(reference(inputs[start : start + 8]), targets[start : start + 8])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    with edgekit.connect("local") as device:
        session = device.train(program, dataset, epochs=3, shuffle=False)
        records = list(session)
        metrics = device.evaluate(program, dataset)
        predictions = device.predict(program, inputs)
        session.write_back(model)
    np.testing.assert_allclose([r.loss for r in records], losses, rtol=1e-4)
    with torch.no_grad():
        expected = reference(inputs)
        home = model(inputs)
    np.testing.assert_allclose(predictions, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(home, predictions, rtol=1e-4, atol=1e-4)
    assert metrics.loss == pytest.approx(functional.cross_entropy(expected, targets).item(), rel=1e-4)
    assert metrics.accuracy == (expected.argmax(1) == targets).float().mean().item()
    assert session.memory.parameter_bytes >= sum(p.numel() for p in model.parameters()) * 4 - 64
    assert session.memory.training_bytes > 0


def test_every_public_name_is_there() -> None:
    for name in edgekit.__all__:
        assert getattr(edgekit, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = edgekit.nonsense


def test_importing_edgekit_is_quick() -> None:
    code = "import sys, edgekit; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TwoInputs(nn.Module):
    """A regression on two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Linear(2, 5)
        self.out = nn.Linear(5, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(torch.relu(self.left(a) + self.right(b)))
        return out


def test_a_regression_on_two_inputs_has_a_loss_and_no_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = TwoInputs().eval()
    a, b, targets = torch.randn(10, 3), torch.randn(10, 2), torch.randn(10, 2)
    program = edgekit.compile(model, ((a[:4], b[:4]), targets[:4]), loss="mse", update="full", optimizer=edgekit.SGD(lr=0.1))
    dataset = {"inputs": a, "inputs_1": b, "targets": targets}
    with edgekit.connect("local") as device:
        with pytest.raises(edgekit.DataError, match="'inputs_1' is missing"):
            device.evaluate(program, {"inputs": a, "targets": targets})
        before = device.evaluate(program, dataset)
        session = device.train(program, dataset, epochs=30)
        after = device.evaluate(program, dataset)
        predictions = device.predict(program, {"inputs": a, "inputs_1": b})
        session.write_back(model)
    assert before.accuracy is None
    assert before.loss is not None
    assert after.loss is not None
    assert after.loss < before.loss / 2
    with torch.no_grad():
        outputs = model(a, b)
    np.testing.assert_allclose(predictions, outputs, rtol=1e-4, atol=1e-5)
    assert after.loss == pytest.approx(functional.mse_loss(outputs, targets).item(), rel=1e-4)
