"""Whole networks and single operators: the graph's values are PyTorch's, before and after the permutations have moved."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.compiler.layout import move_permutes
from edgekit.frontends.torch import Loss, capture
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model
from edgekit.graph.op import Array
from edgekit.graph.ops.shape import Permute
from edgekit.graph.value import DType, Value
from tests.zoo import ZOO, lively


def feeds(model: Model, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None) -> dict[Value, Array]:
    found = {v: x.numpy() for v, x in zip(model.inputs, inputs, strict=True)}
    if targets is not None and model.targets is not None:
        found[model.targets] = targets.numpy()
    found.update({v: np.array([7, 3], np.int32) for v in model.graph.inputs if v not in found})
    return found


def check(model: nn.Module, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor | None, loss: Loss) -> Model:
    """Outputs and loss in double precision, of the graph as captured and as moved; returns the latter."""
    captured = capture(model, (inputs, targets), loss)
    double = copy.deepcopy(model).double()
    wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    wanted = double(*wide)
    goal = targets.double() if targets is not None and targets.is_floating_point() else targets
    function = {"cross_entropy": functional.cross_entropy, "mse": functional.mse_loss, "l1": functional.l1_loss}.get(loss, loss)  # type: ignore[arg-type]
    number = function(wanted, goal)
    leaves = wanted if isinstance(wanted, tuple) else (wanted,)
    moved = move_permutes(captured)
    for one in (captured, moved):
        one.graph.validate()
        found = interpret(one.graph, feeds(one, inputs, targets))
        for value, leaf in zip(one.outputs, leaves, strict=True):
            np.testing.assert_allclose(found[value], leaf.detach().numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[one.loss], number.detach().numpy(), rtol=1e-9)
    return moved


def permutes(model: Model) -> list[Value]:
    """What is permuted."""
    return [v for node in model.graph.nodes if isinstance(node.op, Permute) for v in node.reads]


@pytest.mark.parametrize("name", ZOO)
def test_networks(name: str) -> None:
    make, size = ZOO[name]
    torch.manual_seed(0)
    moved = check(lively(make()), (torch.randn(2, 3, size, size),), torch.tensor([1, 2]), "cross_entropy")
    assert permutes(moved) == [moved.inputs[0]], "only the image is permuted, to NHWC"
    assert (moved.classes, moved.ignore_index) == (10, -100)


def test_channels_last_model_and_input() -> None:
    make, size = ZOO["mobilenet_v2"]
    torch.manual_seed(0)
    model = lively(make()).to(memory_format=torch.channels_last)
    check(model, (torch.randn(2, 3, size, size).to(memory_format=torch.channels_last),), torch.tensor([1, 2]), "cross_entropy")


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor], **parameters: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, tensor in parameters.items():
            self.register_parameter(name, nn.Parameter(tensor))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs, **dict(self.named_parameters()))


def shuffled(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def in_place(x: torch.Tensor) -> torch.Tensor:
    """Writes into a view, and reads the original afterwards."""
    y = x * 2
    y.flatten(1).relu_()
    return y + x.sigmoid()


def reread(x: torch.Tensor) -> torch.Tensor:
    """Writes into what is read again."""
    y = x + 1
    z = y.relu_()
    return y * 2 + z


IMAGES: dict[str, nn.Module] = {
    "conv": nn.Conv2d(4, 6, 3),
    "conv stride, padding, dilation": nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (2, 1)),
    "conv grouped": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "conv depthwise with multiplier": nn.Conv2d(4, 8, 3, groups=4),
    "conv same, even kernel": nn.Conv2d(4, 6, (4, 2), padding="same"),
    "conv valid": nn.Conv2d(4, 6, 2, padding="valid"),
    "batch norm": nn.BatchNorm2d(4),
    "batch norm without scale": nn.BatchNorm2d(4, affine=False),
    "linear on pixels": nn.Linear(9, 5),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "relu6 in place": nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU6(inplace=True)),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "tanh": nn.Tanh(),
    "leaky relu": nn.LeakyReLU(0.1),
    "max pool": nn.MaxPool2d(2),
    "max pool padded": nn.MaxPool2d(3, 2, 1),
    "max pool ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
    "max pool ceil, window left out": nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    "max pool dilated": nn.MaxPool2d(2, 1, dilation=2),
    "avg pool": nn.AvgPool2d(2),
    "avg pool padded": nn.AvgPool2d(3, 2, 1),
    "avg pool padding not counted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg pool ceil": nn.AvgPool2d(2, 2, ceil_mode=True),
    "adaptive pool to 1": nn.AdaptiveAvgPool2d(1),
    "adaptive pool uneven": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive pool of one side": nn.AdaptiveAvgPool2d((None, 1)),
    "adaptive max pool": nn.AdaptiveMaxPool2d(1),
    "dropout in evaluation": nn.Dropout(0.5),
    "zero pad": nn.ZeroPad2d((1, 2, 0, 1)),
    "crop": nn.ZeroPad2d((-1, 0, 2, -1)),
    "softmax over channels": nn.Softmax(1),
    "log softmax": nn.LogSoftmax(-1),
    "mean": Of(lambda x: x.mean((2, 3))),
    "mean kept": Of(lambda x: x.mean(1, keepdim=True) * x),
    "mean of all": Of(lambda x: x.mean().reshape(1, 1) + x.flatten(1)),
    "sum": Of(lambda x: x.sum(1)),
    "amax": Of(lambda x: x.amax((1, 2))),
    "scalars": Of(lambda x: (2 - x) * 3 / 4 + 1 - 0.5 * x),
    "add with alpha": Of(lambda x: torch.add(x, x.abs(), alpha=0.5)),
    "powers": Of(lambda x: x.square() + x.abs().sqrt() + (x.abs() + 1).rsqrt() + (x * x + 1) ** -1 + x**2),
    "exp, log": Of(lambda x: torch.log(torch.exp(x) + 1)),
    "clamp": Of(lambda x: x.clamp(min=-0.3) + x.clamp(max=0.2) + torch.maximum(x, -x)),
    "concatenate": Of(lambda x: torch.cat([x, x.relu(), x.abs()], 1)),
    "concatenate many": Of(lambda x: torch.cat([x * i for i in range(11)], 1)),
    "stack": Of(lambda x: torch.stack([x, -x], 2).flatten(1)),
    "slice": Of(lambda x: x[:, 1:3, ::2, -4:]),
    "select": Of(lambda x: x[:, -1]),
    "chunk": Of(lambda x: torch.mul(*x.chunk(2, 1))),
    "split": Of(lambda x: x.split([1, 3], 1)[1]),
    "unbind": Of(lambda x: x.unbind(1)[2]),
    "narrow": Of(lambda x: x.narrow(2, 1, 3)),
    "permute": Of(lambda x: x.permute(0, 2, 3, 1)),
    "transpose, matmul": Of(lambda x, weight: x.flatten(2).transpose(1, 2) @ weight, weight=torch.randn(4, 3)),
    "shuffle": Of(shuffled),
    "shuffle between convolutions": nn.Sequential(nn.Conv2d(4, 6, 1), Of(shuffled), nn.Conv2d(6, 2, 1)),
    "squeeze": Of(lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(-1).squeeze()),
    "unflatten": Of(lambda x: x.flatten(1).unflatten(1, (4, -1))),
    "expand": Of(lambda x: x[:, :1].expand(-1, 5, -1, -1)),
    "scale of a channel": Of(lambda x, gamma: x * gamma, gamma=torch.randn(4, 1, 1)),
    "scale, stored 1-D": Of(lambda x, gamma: x * gamma.view(1, -1, 1, 1) + gamma[0], gamma=torch.randn(4)),
    "position": Of(lambda x, place: torch.relu(x + place), place=torch.randn(1, 4, 8, 9)),
    "constant": Of(lambda x: x + torch.arange(9.0) + torch.zeros(8, 1)),
    "in place on a view": Of(in_place),
    "in place, read again": Of(reread),
    "flatten to linear": nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.ReLU(), nn.Linear(3 * 6 * 7, 5)),
    "flatten to two layers": nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.BatchNorm1d(126), nn.Linear(126, 5)),
    "rows": nn.Sequential(
        nn.Flatten(0, 1), nn.Conv1d(8, 6, 3, 2, 1), nn.BatchNorm1d(6), nn.ReLU6(), nn.MaxPool1d(2, 1), nn.AvgPool1d(2, 1)
    ),
    "rows, depthwise": nn.Sequential(nn.Flatten(0, 1), nn.Conv1d(8, 8, 3, padding="same", groups=8), nn.AdaptiveAvgPool1d(2)),
    "double convolution": nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)),
    "identity": nn.Identity(),
}


@pytest.mark.parametrize("name", IMAGES)
def test_operators(name: str) -> None:
    torch.manual_seed(0)
    model = lively(IMAGES[name]).eval()
    check(model, (torch.randn(2, 4, 8, 9),), None, lambda outputs, _: outputs.square().mean())


INSIDE = {
    "shuffle between convolutions": 1,  # it moves data
    "rows": 1,  # its input, reshaped by the model
    "flatten to linear": 0,
    "double convolution": 0,
    "scale, stored 1-D": 0,
}


@pytest.mark.parametrize("name", INSIDE)
def test_permutes_inside_are_gone(name: str) -> None:
    """Only the model's own input and outputs are permuted."""
    torch.manual_seed(0)
    moved = check(lively(IMAGES[name]).eval(), (torch.randn(2, 4, 8, 9),), None, lambda outputs, _: outputs.square().mean())
    found = [n for n in moved.graph.nodes if isinstance(n.op, Permute)]
    inside = [n for n in found if n.inputs[0] not in moved.inputs and n.outputs[0] not in moved.outputs]
    assert len(inside) == INSIDE[name]


def test_partly_trained_rows_keep_their_order() -> None:
    model = capture(IMAGES["flatten to linear"].eval(), (torch.randn(2, 4, 8, 9), torch.tensor([0, 1])), "cross_entropy")
    kept = move_permutes(model, keep={"3.weight"})
    assert kept.parameters["3.weight"] == model.parameters["3.weight"]
    assert kept.parameters["3.weight"].value in kept.graph.constants
    moved = move_permutes(model)
    layout, value = moved.parameters["3.weight"].layout, moved.parameters["3.weight"].value
    weight = IMAGES["flatten to linear"][3].weight.detach().numpy()
    np.testing.assert_array_equal(layout.restore(moved.graph.constants[value]), weight)
    np.testing.assert_array_equal(layout.store(weight), moved.graph.constants[value])


SCORES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 4, 2, -100, 1, 1])

LOSSES: dict[str, tuple[Loss, torch.Tensor]] = {
    "cross entropy": ("cross_entropy", CLASSES),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum"), CLASSES),
    "ignored": (lambda o, t: functional.cross_entropy(o, t, ignore_index=1), torch.tensor([0, 4, 2, 3, 1, 1])),
    "probabilities": ("cross_entropy", torch.softmax(SCORES.flip(0), 1)),
    "probabilities smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), torch.softmax(SCORES.flip(0), 1)),
    "nll": (lambda o, t: functional.nll_loss(o.log_softmax(1), t), CLASSES),
    "mse": ("mse", torch.randn(6, 5)),
    "l1": ("l1", torch.randn(6, 5)),
    "binary": (nn.BCEWithLogitsLoss(), torch.rand(6, 5)),
    "by hand": (lambda o, t: ((o - t) ** 2).sum(1).mean() + 0.1 * o.abs().mean(), torch.randn(6, 5)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    loss, targets = LOSSES[name]
    torch.manual_seed(0)
    model = check(nn.Linear(5, 5).eval(), (SCORES,), targets, loss)
    if targets.is_floating_point():
        assert model.classes is None
    else:
        assert (model.classes, model.ignore_index) == (5, 1 if name == "ignored" else -100)
        assert model.targets is not None
        assert model.targets.dtype is DType.I32


def test_scores_of_pixels() -> None:
    torch.manual_seed(0)
    model = check(nn.Conv2d(3, 5, 3).eval(), (torch.randn(2, 3, 6, 6),), torch.randint(5, (2, 4, 4)), "cross_entropy")
    assert model.classes == 5
    assert [v.shape for v in model.outputs] == [(2, 5, 4, 4)]


def test_seeded_dropout_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 3)).eval()
    model[1].train()
    model[3].train()
    captured = capture(model, (torch.randn(2, 4), torch.tensor([0, 1])), "cross_entropy")
    dropouts = [node for node in captured.graph.nodes if node.op.name == "dropout"]
    assert [(node.op.p, node.op.stream) for node in dropouts] == [(0.5, 0), (0.25, 1)]  # type: ignore[attr-defined]
    step = captured.graph.inputs[-1]
    assert (step.shape, step.dtype) == ((2,), DType.I32)
    assert step not in [*captured.inputs, captured.targets]
    assert all(node.inputs[1] is step for node in dropouts)


def test_several_inputs_and_outputs() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x) + self.b(y), self.b(y)

    model = check(
        Pair().eval(),
        (torch.randn(2, 4), torch.randn(2, 5)),
        torch.tensor([0, 1]),
        lambda o, t: functional.cross_entropy(o[0], t),
    )
    assert [v.shape for v in model.inputs] == [(2, 4), (2, 5)]
    assert len(model.outputs) == 2


def test_tied_weights_are_one_array() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
            self.decode.weight = self.encode.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            transposed = functional.linear(torch.relu(self.encode(x)), self.encode.weight.t())
            return transposed + functional.linear(self.decode(x), self.decode.weight.t())

    model = check(Tied().eval(), (torch.randn(2, 4),), torch.randn(2, 4), "mse")
    assert list(model.parameters) == ["encode.weight"]
    assert [v.name for v in model.graph.constants if "weight" in v.name] == ["encode.weight"]


def test_parameters_origins_and_modules() -> None:
    make, size = ZOO["mobilenet_v2"]
    net = make()
    model = capture(net, (torch.randn(2, 3, size, size), torch.tensor([0, 1])), "cross_entropy")
    assert list(model.parameters) == [name for name, _ in net.named_parameters()]
    for name, parameter in model.parameters.items():
        tensor = net.get_parameter(name).detach().numpy()
        np.testing.assert_array_equal(parameter.layout.store(tensor), model.graph.constants[parameter.value])
        np.testing.assert_array_equal(parameter.layout.restore(model.graph.constants[parameter.value]), tensor)
    convolutions = [node for node in model.graph.nodes if node.op.name == "conv2d"]
    assert convolutions[4].origin.module == "features.2.conv.1.0"
    assert convolutions[4].origin.source.startswith("models.py:")
    classes = {m.path: m.class_name for m in model.modules}
    assert (classes["features.2"], classes["features.2.conv.0"]) == ("InvertedResidual", "Conv2dNormActivation")
    paths = [m.path for m in model.modules if m.class_name == "InvertedResidual"]
    assert paths == [f"features.{i}" for i in range(1, 18)]
    assert set(model.digests) == {name for name, _ in [*net.named_parameters(), *net.named_buffers()]}


def test_a_loss_with_parameters_of_its_own() -> None:
    """They are frozen, whatever the model's are called."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(3.0))

        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return functional.mse_loss(outputs, targets) * self.weight

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.loss(x)

    net, x, y = Named().eval(), torch.randn(2, 4), torch.randn(2, 3)
    model = capture(net, (x, y), Weighted())
    assert list(model.parameters) == ["loss.weight", "loss.bias"]
    found = interpret(model.graph, feeds(model, (x,), y))
    np.testing.assert_allclose(found[model.loss], 3 * functional.mse_loss(net(x), y).item(), rtol=1e-6)


def test_later_changes_of_the_module_do_not_reach_the_graph() -> None:
    net = nn.Linear(4, 3).eval()
    model = capture(net, (torch.randn(2, 4), torch.tensor([0, 1])), "cross_entropy")
    before = {v: np.array(a) for v, a in model.graph.constants.items()}
    with torch.no_grad():
        net.weight.zero_()
        net.bias.zero_()
    for v, a in before.items():
        np.testing.assert_array_equal(model.graph.constants[v], a)
