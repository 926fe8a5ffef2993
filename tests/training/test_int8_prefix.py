"""Only the frozen beginning in int8: what is trained stays in float32, and its cost is what PyTorch and the runner show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import edgekit
from edgekit.errors import InputError
from edgekit.graph.ops.quantized import QConv2d, Quantize
from edgekit.program import Program
from edgekit.program.program import EntryRecord, OpRecord
from edgekit.sessions.caching import Caching

SAMPLES, BATCH = 40, 4


class Net(nn.Module):
    """A frozen stem with a residual and a trained rest with one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6())
        self.frozen = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(), nn.Conv2d(32, 32, 1))
        self.down = nn.Conv2d(32, 16, 3, 2, 1)
        self.trained = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Hardswish())
        self.drop = nn.Dropout(0.3)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.down(x + self.frozen(x))
        x = x + self.trained(x)
        return self.classifier(self.drop(x.mean((2, 3))))


UPDATE = {"trained.*": 1.0, "classifier.*": 1.0}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def data() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    targets = torch.arange(SAMPLES) % 5
    return {"inputs": torch.randn(SAMPLES, 3, 24, 24) + functional.one_hot(targets, 5)[:, :3, None, None], "targets": targets}


@pytest.fixture(autouse=True)
def _runs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compiled(net: nn.Module, data: dict[str, torch.Tensor], update: object = UPDATE, targets: bool = True) -> Program:
    asked = edgekit.Int8(data["inputs"], prefix_only=True, targets=data["targets"] if targets else None)
    example = data["inputs"][:BATCH], data["targets"][:BATCH]
    return edgekit.compile(net, example, update=update, optimizer=edgekit.SGD(lr=0.1), quantize=asked)  # type: ignore[arg-type]


def modules(entry: EntryRecord, kind: type) -> list[str]:
    return [o.origin.module for o in entry.ops if isinstance(o.op, kind)]


def float_products(entry: EntryRecord) -> list[OpRecord]:
    return [o for o in entry.ops if o.op.name in ("conv2d", "linear")]


def test_what_comes_before_the_first_trained_array_is_in_int8_and_all_else_in_float32(
    net: Net, data: dict[str, torch.Tensor]
) -> None:
    program = compiled(net, data)
    for name in ("train_step", "evaluate", "predict", "prefix"):
        entry = program.entries[name]
        assert modules(entry, QConv2d) == ["stem.0", "frozen.0", "frozen.2", "down"], name
        assert len(modules(entry, Quantize)) == 1, name
        assert len(float_products(entry)) == (0 if name == "prefix" else 2), name
    assert {t.type.dtype.name for t in program.states} == {"F32"}
    assert not program.metadata["int8_inputs"], "data stays as it is"
    assert not modules(program.entries["suffix"], QConv2d)


@pytest.mark.parametrize("cache", ["off", "float32"])
def test_it_trains_and_evaluates_the_same_numbers(net: Net, data: dict[str, torch.Tensor], cache: Caching) -> None:
    program = compiled(net, data)
    with edgekit.connect("local") as device:
        untrained = device.evaluate(program, data)
        losses = [r.loss for r in device.train(program, data, epochs=6, shuffle=False, cache=cache)]
        trained = device.evaluate(program, data)
    exact = functional.cross_entropy(net(data["inputs"]), data["targets"]).item()
    first = functional.cross_entropy(net(data["inputs"][:BATCH]), data["targets"][:BATCH]).item()
    assert losses[0] == pytest.approx(first, rel=0.01)
    assert untrained.loss == pytest.approx(exact, rel=0.01)
    assert untrained.loss != exact
    assert trained.loss < exact - 0.05
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_the_cost_is_that_of_the_board_beside_pytorch(net: Net, data: dict[str, torch.Tensor]) -> None:
    program = compiled(net, data)
    cost = program.report().int8_cost
    assert cost is not None
    held_out = np.linspace(0, SAMPLES - 1, 8).astype(int)  # two of ten batches
    assert cost.samples == len(held_out)
    rows = {name: a[held_out] for name, a in data.items()}
    exact = net(rows["inputs"]).detach().numpy()
    with edgekit.connect("local") as device:
        made = device.predict(program, rows["inputs"].numpy())
        loss = device.evaluate(program, rows).loss
    assert cost.output_error == pytest.approx(np.linalg.norm(made - exact) / np.linalg.norm(exact), rel=0.02)
    assert 0 < cost.output_error < 0.1
    assert cost.agreement == np.mean(made.argmax(1) == exact.argmax(1))
    assert cost.loss is not None
    assert cost.loss["int8"] == pytest.approx(loss, abs=1e-5)
    assert cost.loss["float32"] == pytest.approx(
        functional.cross_entropy(torch.from_numpy(exact), rows["targets"]).item(), abs=1e-5
    )
    assert 20 < cost.signal_to_noise < 60, "eight bits have 50 dB at best"
    assert "frozen prefix in int8: signal to noise" in program.summary()


def test_ranges_come_from_other_samples_than_the_cost(net: Net, data: dict[str, torch.Tensor]) -> None:
    wild = {**data, "inputs": data["inputs"].clone()}
    wild["inputs"][np.linspace(0, SAMPLES - 1, 8).astype(int)] *= 100
    narrow, wide = compiled(net, data).report().int8_cost, compiled(net, wild).report().int8_cost
    assert narrow is not None
    assert wide is not None
    assert wide.signal_to_noise < 10 < narrow.signal_to_noise


def test_dropout_in_the_trained_rest_is_no_part_of_the_cost(net: Net, data: dict[str, torch.Tensor]) -> None:
    net.drop.train()
    dropping, still = compiled(net, data).report().int8_cost, compiled(net.eval(), data).report().int8_cost
    assert dropping == still


def test_without_targets_there_is_no_loss_and_without_classes_no_agreement(net: Net, data: dict[str, torch.Tensor]) -> None:
    cost = compiled(net, data, targets=False).report().int8_cost
    assert cost is not None
    assert cost.loss is None
    assert cost.agreement is not None
    example = data["inputs"][:BATCH], torch.zeros(BATCH, 5)
    asked = edgekit.Int8(data["inputs"], prefix_only=True)
    cost = edgekit.compile(net, example, loss="mse", update=UPDATE, quantize=asked).report().int8_cost
    assert cost is not None
    assert cost.loss is None
    assert cost.agreement is None


def test_what_cannot_be_done_says_so(net: Net, data: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match="before the first trained array"):
        compiled(net, data, update="full")
    with pytest.raises(InputError, match="less than two batches"):
        compiled(net, {name: a[: 2 * BATCH - 1] for name, a in data.items()})
    with pytest.raises(InputError, match="no scaling to leave out"):
        edgekit.Int8(data["inputs"], scaled_updates=False, prefix_only=True)
    with pytest.raises(InputError, match="tensors, this is a ndarray"):
        edgekit.Int8(data["inputs"].numpy())  # type: ignore[arg-type]
