"""Large activations by groups of samples: the same numbers in less memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgekit
from edgekit.compiler import compile_program, samples
from edgekit.graph.entry import Role
from edgekit.graph.model import Model
from edgekit.graph.ops.shape import Concat
from edgekit.program import Program
from edgekit.sessions.caching import Caching
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import Everything, gated, inverted_residuals, residuals, train_only
from tests.support.simulator import Simulator
from tests.zoo import lively, mobilenet_v2, resnet18

NETS = {"inverted residuals": inverted_residuals, "residuals": residuals, "gated": gated}
ENTRIES = ("train_step", "evaluate", "predict")


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_LARGE", 1 << 40)


def in_groups(monkeypatch: pytest.MonkeyPatch, large: int = 16, small: int = 0) -> None:
    monkeypatch.setattr(samples, "_LARGE", large)
    monkeypatch.setattr(samples, "_SMALL", small)


def compiled(model: Model, trained: int) -> Program:
    states = [v.name for v in list(model.graph.state)[-trained:]]
    plan = make_plan(model, train_only(model, dict.fromkeys(states)), SGD(0.05, 0.9))
    return compile_program(plan, capability=Everything(), batch=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("trained", [1, 2, 4])
def test_groups_compute_what_the_whole_does(name: str, trained: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, model = NETS[name]()
    whole(monkeypatch)
    one = Simulator(compiled(model, trained))
    in_groups(monkeypatch)
    two = Simulator(compiled(model, trained))
    for entry in ENTRIES:
        assert any(isinstance(o.op, Concat) for o in two.program.entries[entry].ops), f"{entry} is in groups"
        raw = net.feeds(model)
        feeds = {(Role.INPUT, 0): raw[net.x].astype(np.float32), (Role.TARGET, 0): raw[model.targets]}
        for port, expected in one.run(entry, feeds).items():
            np.testing.assert_allclose(two.run(entry, feeds)[port], expected, rtol=1e-5, atol=1e-6)


def test_an_entry_without_large_arrays_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    _net, model = residuals()
    plain = compiled(model, 1)
    whole(monkeypatch)
    assert compiled(model, 1).data == plain.data


@pytest.mark.parametrize(("make", "update"), [(mobilenet_v2, "last:2"), (resnet18, "head")])
@pytest.mark.parametrize("batch", [8, 6])
def test_the_runner_learns_the_same(  # type: ignore[no-untyped-def]
    make, update: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit where the frozen beginning is cached; to rounding beside a program that works on whole batches."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = lively(make(classes=10))
    x, y = torch.randn(2 * batch, 3, 64, 64), torch.arange(2 * batch) % 10
    data = {"inputs": x, "targets": y}

    def run(cache: Caching) -> tuple[Program, list[float], list[np.ndarray]]:
        program = edgekit.compile(model, (x[:batch], y[:batch]), update=update, optimizer=edgekit.SGD(0.01, momentum=0.9))
        with edgekit.connect("local") as device:
            session = device.train(program, data, epochs=3, seed=1, cache=cache)
            losses = [r.loss for r in session]
            arrays = [*session.state().values(), device.predict(program, x[:batch].numpy())]
            return program, [*losses, device.evaluate(program, data).loss], arrays

    whole(monkeypatch)
    one, losses, arrays = run("off")
    in_groups(monkeypatch, large=64 << 10, small=64 << 10)
    two, found, left = run("off")
    _, again, cached = run("float32")
    assert found == again
    for a, b, c in zip(left, cached, arrays, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert found == losses
    assert two.header.arena_bytes < one.header.arena_bytes
    for entry in (*ENTRIES, "prefix"):
        names = [o.op.name for o in two.entries[entry].ops]
        assert names.count("permute") == batch, f"{entry}: a group a sample"
        assert "slice" not in names, f"{entry}: a group's rows are read where they lie"
