"""SGD on the folded arrays follows PyTorch's SGD on the user's own, to rounding: everything here is in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.compiler.layout import move_permutes
from edgekit.frontends.torch import capture
from edgekit.frontends.torch.write_back import write_bindings
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model, Trainable
from edgekit.training.fold import channels_of, fold
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from edgekit.training.scheme import Update, choose
from tests.zoo import lively, mobilenet_v2, mobilenet_v3, preact_resnet

STEPS = 6
ALL = SGD(lr=0.05, momentum=0.9, weight_decay=0.02, nesterov=True)


class Small(nn.Module):
    """Convolutions with biases before BatchNorm, dense, depthwise and grouped; a linear layer with BatchNorm after a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 16, 3, stride=2, groups=8)
        self.bn2 = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 12, 1, groups=2, bias=False)
        self.bn3 = nn.BatchNorm2d(12, affine=False)
        self.linear = nn.Linear(108, 10)
        self.bn4 = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu6(self.bn(self.conv(x)))
        y = functional.hardswish(self.bn2(self.depthwise(y)))
        y = torch.sigmoid(self.bn3(self.grouped(y))).flatten(1)
        return self.head(torch.relu(self.bn4(self.linear(y))))


class Twice(nn.Module):
    """One convolution and one BatchNorm used twice, and a convolution whose result is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.split = nn.Conv2d(4, 4, 1)
        self.bn2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.bn(self.conv(x)))
        y = torch.tanh(self.bn(self.conv(y)))
        z = self.split(y)
        return self.head((self.bn2(z) + z).mean((2, 3)))


class Wave(nn.Sequential):
    """1-D convolutions."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(2, 8, 5, 2, 2),
            nn.BatchNorm1d(8),
            nn.SiLU(),
            nn.Conv1d(8, 8, 3, groups=8, padding="same", bias=False),
            nn.BatchNorm1d(8),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )


@dataclass
class Case:
    """A network and a batch."""

    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor


def case(model: nn.Module, *shape: int, classes: int) -> Case:
    torch.manual_seed(0)
    return Case(lively(model.eval()), torch.randn(4, *shape), torch.randint(classes, (4,)))


def small() -> Case:
    torch.manual_seed(1)
    return case(Small(), 3, 8, 8, classes=5)


def compiled(given: Case, update: Update) -> tuple[Model, list[Trainable], dict[str, float]]:
    captured = capture(given.model, (given.x, given.y), "cross_entropy")
    fractions = choose(captured, update).fractions
    partial = {name for name, fraction in fractions.items() if fraction < 1}
    folded, trainables = fold(move_permutes(captured, keep=partial), fractions)
    folded.graph.validate()
    return folded, trainables, fractions


def board_run(given: Case, update: Update, optimizer: SGD, clip: float | None = None) -> tuple[list[float], nn.Module, Model]:
    """Losses by step, and the user's model with what the board trained, in double precision's reach of float32."""
    folded, trainables, _ = compiled(given, update)
    entry = make_plan(folded, trainables, optimizer, clip_norm=clip)["train_step"]
    inputs = {folded.inputs[0]: given.x.numpy(), folded.targets: given.y.numpy()}
    inputs = {v: a for v, a in inputs.items() if v in entry.graph.inputs}
    state = {v: np.asarray(a, np.float64) for v, a in entry.graph.state.items()}
    losses = []
    for _ in range(STEPS):
        found = interpret(entry.graph, inputs, state)
        state = {v: found[v] for v in state}
        losses.append(float(found[folded.loss]))
    model = copy.deepcopy(given.model)
    write_bindings([t.binding for t in trainables], captured_digests(given), {v.name: a for v, a in state.items()}, model)
    return losses, model, folded


def captured_digests(given: Case) -> Mapping[str, str]:
    return capture(given.model, (given.x, given.y), "cross_entropy").digests


def torch_run(given: Case, update: Update, optimizer: SGD, clip: float | None = None) -> tuple[list[float], nn.Module]:
    """The same by PyTorch on the unfolded model in double precision."""
    _, _, fractions = compiled(given, update)
    model = copy.deepcopy(given.model).double()
    trained = {name: p for name, p in model.named_parameters() if name in fractions}
    for name, p in model.named_parameters():
        p.requires_grad_(name in trained)
    frozen = {name: part_frozen(given, name, p, fractions[name]) for name, p in trained.items()}
    before = {name: p.detach().clone() for name, p in trained.items()}
    sgd = torch.optim.SGD(trained.values(), optimizer.lr, optimizer.momentum, 0, optimizer.weight_decay, optimizer.nesterov)
    losses = []
    for _ in range(STEPS):
        sgd.zero_grad()
        loss = functional.cross_entropy(model(given.x.double()), given.y)
        loss.backward()
        for name, p in trained.items():
            p.grad[frozen[name]] = 0
        if clip is not None:
            nn.utils.clip_grad_norm_(trained.values(), clip)
        sgd.step()
        with torch.no_grad():
            for name, p in trained.items():
                p[frozen[name]] = before[name][frozen[name]]
        losses.append(loss.item())
    return losses, model


def part_frozen(given: Case, name: str, p: torch.Tensor, fraction: float) -> torch.Tensor:
    """Where a partly trained weight stays as it is: all but its first input channels (output channels of a depthwise one)."""
    mask = torch.zeros_like(p, dtype=torch.bool)
    if fraction < 1:
        axis = 0 if p.dim() > 2 and p.shape[1] == 1 else 1
        groups = given.model.get_submodule(name.rpartition(".")[0]).groups if p.dim() > 2 else 1
        whole = groups if axis == 0 else p.shape[1]
        count = int(np.ceil(fraction * whole)) * (p.shape[0] // groups if axis == 0 else 1)
        mask.index_fill_(axis, torch.arange(count, p.shape[axis]), True)
    return mask


def agree(given: Case, update: Update, optimizer: SGD = ALL, clip: float | None = None, split: bool = True) -> Model:
    """The board's losses and the model that it gives back are PyTorch's."""
    ours, mine, folded = board_run(given, update, optimizer, clip)
    theirs, model = torch_run(given, update, optimizer, clip)
    assert ours == pytest.approx(theirs, rel=1e-10)
    assert abs(theirs[-1] - theirs[0]) > 1e-5, "nothing was learnt, so nothing was compared"
    torch.testing.assert_close(mine.double()(given.x.double()), model(given.x.double()), rtol=1e-5, atol=1e-6)
    if split:
        for (name, a), b in zip(mine.named_parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(
                a.detach(), b.detach(), rtol=1e-6, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
            )
    return folded


def names_of(folded: Model) -> list[str]:
    return [node.op.name for node in folded.graph.nodes]


OPTIMIZERS = {
    "plain": SGD(lr=0.05),
    "momentum": SGD(lr=0.03, momentum=0.9),
    "decay": SGD(lr=0.05, weight_decay=0.1),
    "nesterov": ALL,
}

UPDATES: dict[str, Update] = {
    "full without biases before norms": {"*.weight": 1.0, "bn*.bias": 1.0, "bn*.weight": 1.0, "head.*": 1.0},
    "weights": {"conv.weight": 1.0, "depthwise.weight": 1.0, "grouped.weight": 1.0, "linear.weight": 1.0},
    "norm biases": {"bn*.bias": 1.0},
    "own biases": {"conv.bias": 1.0, "depthwise.bias": 1.0, "linear.bias": 1.0},
    "norm scales": {"bn*.weight": 1.0},
    "scales and own biases": {"bn*.weight": 1.0, "conv.bias": 1.0, "linear.bias": 1.0},
    "parts": {"conv.weight": 0.5, "depthwise.weight": 0.3, "grouped.weight": 0.4, "linear.weight": 0.25, "bn2.bias": 1.0},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_dynamics(update: Update, optimizer: SGD) -> None:
    agree(small(), update, optimizer)


@pytest.mark.parametrize("update", ["full", {"*": 1.0}, {"conv.bias": 1.0, "bn.bias": 1.0}], ids=str)
def test_both_biases(update: Update) -> None:
    agree(small(), update, SGD(lr=0.05, momentum=0.9))
    decay = SGD(lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    agree(small(), update, decay, split=False)  # with decay only the sum of both biases is what PyTorch's is


@pytest.mark.parametrize("clip", [0.05, 0.5])
@pytest.mark.parametrize("update", [*UPDATES.values(), "full", {"*": 1.0}], ids=str)
def test_clipping_measures_the_users_gradients(update: Update, clip: float) -> None:
    agree(small(), update, SGD(lr=0.5, momentum=0.5), clip)


def test_scale_that_is_not_trained_folds() -> None:
    folded = agree(small(), UPDATES["parts"])
    assert not {"batch_norm", "affine"} & set(names_of(folded))


def test_scale_that_is_trained_stays() -> None:
    folded = agree(small(), {"bn.weight": 1.0, "conv.weight": 1.0})
    assert names_of(folded).count("affine") == 1


@pytest.mark.parametrize("update", ["full", "last:1", {"*": 1.0}, {"*.conv1.weight": 0.5, "*.bn1.bias": 1.0}], ids=str)
def test_pre_activation(update: Update) -> None:
    folded = agree(case(preact_resnet(5), 3, 16, 16, classes=5), update)
    assert "batch_norm" not in names_of(folded)


@pytest.mark.parametrize(
    "update", ["full", {"*": 1.0}, {"conv.weight": 1.0}, {"bn.*": 1.0}, {"bn2.bias": 1.0, "split.weight": 1.0}], ids=str
)
def test_shared_modules(update: Update) -> None:
    torch.manual_seed(2)
    agree(case(Twice(), 4, 6, 6, classes=3), update, split=update != "full" and update != {"*": 1.0})


@pytest.mark.parametrize("update", ["full", {"*": 1.0}, {"0.weight": 0.5, "3.weight": 0.5}], ids=str)
def test_one_dimension(update: Update) -> None:
    torch.manual_seed(3)
    agree(case(Wave(), 2, 24, classes=4), update, SGD(lr=0.1, momentum=0.9))


NETWORKS = {
    "mobilenet_v2": lambda: case(mobilenet_v2(0.35, 5), 3, 32, 32, classes=5),
    "mobilenet_v3": lambda: case(mobilenet_v3(5), 3, 32, 32, classes=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("update", ["last:2", {"*": 1.0}], ids=str)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_networks(make: Callable[[], Case], update: Update) -> None:
    agree(make(), update, SGD(lr=0.02, momentum=0.9, weight_decay=1e-3), split=False)


def test_dead_channel_of_a_trained_convolution_does_not_fold() -> None:
    given = small()
    with torch.no_grad():
        given.model.bn.weight[3] = 0.0
        given.model.bn.weight[4] = 1e-9
    folded = agree(given, {"conv.*": 1.0, "bn.bias": 1.0})
    assert names_of(folded).count("affine") == 1
    folded = agree(given, {"bn.bias": 1.0, "head.weight": 1.0})
    assert "affine" not in names_of(folded)


def test_fraction_rounds_up_and_takes_whole_groups() -> None:
    folded, trainables, _ = compiled(small(), UPDATES["parts"])
    counts = {t.value.name: (t.in_axis, t.channels) for t in trainables}
    assert counts == {
        "conv.weight": (2, 2),
        "depthwise.weight": (3, 6),
        "grouped.weight": (2, 4),
        "linear.weight": (0, 27),
        "bn2.bias": (None, None),
    }
    parameter = folded.parameters["linear.weight"]
    assert channels_of(parameter, 1.0) is None
    assert channels_of(parameter, 1e-6) == 1
