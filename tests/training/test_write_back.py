"""Arrays go back into the user's module: unfolded, whole or in part, and only into the module that was compiled."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compiler.layout import move_permutes
from edgekit.errors import InputError
from edgekit.frontends.torch import capture
from edgekit.frontends.torch.write_back import write_bindings
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Binding, Model
from edgekit.training.fold import fold
from edgekit.training.scheme import Update, choose
from tests.zoo import ZOO, lively


def prepared(name: str, update: Update) -> tuple[nn.Module, torch.Tensor, Model, list[Binding]]:
    make, size = ZOO[name]
    torch.manual_seed(0)
    model, x = lively(make()), torch.randn(2, 3, size, size)
    captured = capture(model, (x, torch.tensor([1, 2])), "cross_entropy")
    fractions = choose(captured, update).fractions
    folded, trainables = fold(move_permutes(captured, {n for n, f in fractions.items() if f < 1}), fractions)
    bindings = json.loads(json.dumps([t.binding.to_json() for t in trainables]))
    return model, x, folded, [Binding.from_json(b) for b in bindings]


@pytest.mark.parametrize("update", ["full", "last:2", "bias:4", {"*": 1.0}, {"*weight": 0.3}], ids=str)
@pytest.mark.parametrize("name", [pytest.param("mobilenet_v2", marks=pytest.mark.slow), "mobilenet_v3", "preact_resnet"])
def test_logits_are_the_boards(name: str, update: Update) -> None:
    """Arrays that a training could have left: moved at random, in the trained part."""
    model, x, folded, bindings = prepared(name, update)
    generator = np.random.default_rng(0)
    state = {v: a + 0.05 * np.abs(a).mean() * generator.standard_normal(a.shape) for v, a in folded.graph.state.items()}
    for binding in bindings:
        if binding.channels is not None:
            v = next(v for v in state if v.name == binding.value)
            rest = (slice(None),) * binding.in_axis + (slice(binding.channels, None),)
            state[v][rest] = folded.graph.state[v][rest]
    found = interpret(folded.graph, {folded.inputs[0]: x.numpy(), folded.targets: np.array([1, 2])}, state)
    before = model(x)
    write_bindings(bindings, folded.digests, {v.name: a for v, a in state.items()}, model)
    logits = model(x).detach()
    torch.testing.assert_close(logits.double(), torch.from_numpy(found[folded.outputs[0]]), rtol=1e-4, atol=1e-4)
    assert (logits - before).abs().max() > 1e-3


def test_untouched_state_changes_nothing_but_rounding() -> None:
    model, _, folded, bindings = prepared("preact_resnet", {"*": 1.0})
    before = copy.deepcopy(model)
    write_bindings(bindings, folded.digests, {v.name: a for v, a in folded.graph.state.items()}, model)
    for a, b in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_only_the_slice_is_written() -> None:
    model, _, folded, bindings = prepared("resnet18", {"layer4.0.conv1.weight": 0.25})
    before = copy.deepcopy(model)
    write_bindings(bindings, folded.digests, {v.name: np.asarray(a) * 2 for v, a in folded.graph.state.items()}, model)
    a, b = model.layer4[0].conv1.weight, before.layer4[0].conv1.weight
    assert torch.equal(a[:, 64:], b[:, 64:])
    torch.testing.assert_close(a[:, :64], 2 * b[:, :64])
    changed = [n for (n, p), q in zip(model.named_parameters(), before.parameters(), strict=True) if not torch.equal(p, q)]
    assert changed == ["layer4.0.conv1.weight"]


@pytest.mark.parametrize("tensor", ["bn1.running_mean", "bn1.weight", "layer1.0.conv1.weight"])
def test_another_model_is_refused(tensor: str) -> None:
    model, _, folded, bindings = prepared("resnet18", "head")
    with torch.no_grad():
        dict([*model.named_parameters(), *model.named_buffers()])[tensor].view(-1)[0] += 0.5
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=f"'{tensor}' differs"):
        write_bindings(bindings, folded.digests, {v.name: a for v, a in folded.graph.state.items()}, model)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_a_second_write_back_works() -> None:
    """What was trained may differ from the compiled values: it does after the first time."""
    model, _, folded, bindings = prepared("preact_resnet", "full")
    state = {v.name: np.asarray(a) * 1.1 for v, a in folded.graph.state.items()}
    write_bindings(bindings, folded.digests, state, model)
    once = copy.deepcopy(model)
    write_bindings(bindings, folded.digests, state, model)
    for a, b in zip(model.parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_model_of_other_shape_is_refused() -> None:
    _, _, folded, bindings = prepared("resnet18", "head")
    other = ZOO["preact_resnet"][0]()
    with pytest.raises(InputError, match="the model has no"):
        write_bindings(bindings, folded.digests, {v.name: a for v, a in folded.graph.state.items()}, other)
