"""Whole training runs on the real runner follow PyTorch's loss curve, and the parameters that come home give its logits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import edgekit
from tests.zoo import lively, mcunet, mobilenet_v2, resnet18

pytestmark = pytest.mark.slow

BATCHES = 5
EPOCHS = 10  #: 50 steps
BATCH = 4
SIZE = 64
CLASSES = 10
SGD = {"momentum": 0.9, "weight_decay": 1e-4}
TOLERANCE = 1e-4  #: relative, of every loss and of the final logits

NETWORKS: dict[
    str, tuple[Callable[[], nn.Module], float]
] = {  # and a rate at which the loss falls steadily: elsewhere float32 and float64 curves part
    "mobilenet_v2": (lambda: mobilenet_v2(1.0, CLASSES), 0.03),
    "resnet18": (lambda: resnet18(CLASSES), 5e-5),
    "mcunet": (lambda: mcunet(0.5, CLASSES), 0.03),
}
SLICES = {  # a quarter and a half of the input channels of some weights, and every bias
    "mobilenet_v2": {
        "features.1[2-7].conv.0.0.weight": 0.5,
        "features.1[0-7].conv.1.0.weight": 0.25,
        "*.bias": 1.0,
        "classifier.*": 1.0,
    },
    "resnet18": {"layer4.*.conv1.weight": 0.25, "layer3.1.conv2.weight": 0.5, "*.bias": 1.0, "fc.*": 1.0},
    "mcunet": {"*.conv.0.0.weight": 0.5, "*.bias": 1.0, "classifier.*": 1.0},
}


def pytorch_run(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, names: Mapping[str, float], lr: float
) -> tuple[list[float], nn.Module]:
    """The same steps by eager PyTorch: the losses and the trained module. A fraction keeps its leading input channels only.

    In double precision: PyTorch's float32 sums differ from run to run, and one at ReLU6's edge is cut in one run only.
    """
    trained = copy.deepcopy(model).double()
    images = images.double()
    chosen = {n: p for n, p in trained.named_parameters() if n in names}
    for n, p in trained.named_parameters():
        p.requires_grad_(n in chosen)
    start = {n: p.detach().clone() for n, p in chosen.items()}
    optimizer = torch.optim.SGD(chosen.values(), lr=lr, **SGD)
    losses = []
    for step in range(EPOCHS * BATCHES):
        rows = slice(step % BATCHES * BATCH, (step % BATCHES + 1) * BATCH)
        optimizer.zero_grad()
        loss = functional.cross_entropy(trained(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            for n, p in chosen.items():
                _keep_the_rest(p, start[n], names[n])
    return losses, trained


def _keep_the_rest(parameter: torch.Tensor, start: torch.Tensor, fraction: float) -> None:
    """Put back what lies outside the trained slice: input channels, or a depthwise weight's channels."""
    if fraction >= 1 or parameter.dim() < 2:
        return
    axis = 0 if parameter.shape[1] == 1 else 1
    first = int(np.ceil(parameter.shape[axis] * fraction))
    rest = (slice(None),) * axis + (slice(first, None),)
    parameter[rest] = start[rest]


def fractions_of(update: str | Mapping[str, float], names: list[str]) -> dict[str, float]:
    """What is trained of each parameter: a word trains whole ones, a mapping says it by glob."""
    if isinstance(update, str):
        return dict.fromkeys(names, 1.0)
    return {name: next(f for glob, f in update.items() if fnmatchcase(name, glob)) for name in names}


CASES = [(n, u) for n in NETWORKS for u in ("full", "last:2", "slices") if (n, u) != ("resnet18", "full")]


@pytest.mark.parametrize(("network", "update"), CASES)
def test_fifty_steps(network: str, update: str) -> None:
    torch.manual_seed(0)
    make, lr = NETWORKS[network]
    images = torch.randn(BATCHES * BATCH, 3, SIZE, SIZE)
    labels = torch.randint(CLASSES, (BATCHES * BATCH,))
    model = lively(make())
    spec = SLICES[network] if update == "slices" else update
    optimizer = edgekit.SGD(lr=lr, **SGD)
    program = edgekit.compile(
        model, (images[:BATCH], labels[:BATCH]), loss="cross_entropy", board="local", update=spec, optimizer=optimizer
    )
    fractions = fractions_of(spec, program.updated_parameters())
    expected, reference = pytorch_run(model, images, labels, fractions, lr)

    with edgekit.connect("local", threads=2) as device:
        session = device.train(program, {"inputs": images.numpy(), "targets": labels.numpy()}, epochs=EPOCHS, shuffle=False)
        losses = [record.loss for record in session]
        home = copy.deepcopy(model)
        session.write_back(home)
        predicted = device.predict(program, images.numpy())

    assert np.mean(expected[-BATCHES:]) < 0.95 * np.mean(expected[:BATCHES])  # a curve that is flat proves nothing
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    with torch.no_grad():
        logits = home(images).numpy()
        wanted = reference(images.double()).numpy()
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(logits, predicted, atol=TOLERANCE * scale)
    np.testing.assert_allclose(logits, wanted, atol=10 * TOLERANCE * scale)
