"""What is measured: networks by name, and the pieces of work that are done with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.peers.layers import folded
from examples.models import mcunet, mobilenet_v2, resnet18, resnet50

CLASSES = 10
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenetv2": lambda: mobilenet_v2(1.0, CLASSES),
    "mobilenetv2-0.35": lambda: mobilenet_v2(0.35, CLASSES),
    "resnet18": lambda: resnet18(CLASSES),
    "resnet50": lambda: resnet50(CLASSES),
    "mcunet": lambda: mcunet(0.5, CLASSES),
}
FULL, SPARSE = "full", "last:6"  #: of the network's blocks, and the classifier (docs/update-schemes.md)
#: published schemes, and the network that each is for: parts of single weights, and the biases of the last layers
SCHEMES = {
    "mobilenetv2-49kb": "mobilenetv2-0.35",
    "mobilenetv2-138kb": "mobilenetv2-0.35",
    "mcunet-49kb": "mcunet",
    "mcunet-148kb": "mcunet",
}


@dataclass(frozen=True)
class Work:
    """One thing to measure: a training step on ``batch`` images of ``size`` × ``size``."""

    network: str
    size: int
    batch: int
    update: str
    threads: int

    def __str__(self) -> str:
        return f"{self.network} {self.batch}×{self.size}² {self.update}, {self.threads} thr"


def applies(update: str, network: str) -> bool:
    """Whether an update is for that network: a published scheme only for its own."""
    return SCHEMES.get(update, network) == network


#: network, size, batch: in the order of what is asked most
SHAPES = (
    ("mobilenetv2", 224, 8),
    ("mobilenetv2", 128, 8),
    ("resnet18", 224, 8),
    ("resnet50", 224, 8),
    ("mobilenetv2-0.35", 128, 8),
    ("mcunet", 128, 8),
    ("mobilenetv2", 224, 1),
    ("mobilenetv2", 128, 1),
)
QUICK = (("mobilenetv2", 128, 8),)


def make_network(name: str, inputs: torch.Tensor) -> nn.Module:
    """A network as a trained one would be: BatchNorm with the statistics of ``inputs``, folded. The same at every call.

    No two biases are equal: ONNX Runtime ties equal initial values together.
    """
    torch.manual_seed(0)
    module = NETWORKS[name]()
    _settle(module, inputs)
    made = folded(module)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.01 * torch.randn_like(parameter))
    return made


def _settle(module: nn.Module, inputs: torch.Tensor) -> None:
    """Give every BatchNorm the statistics of its inputs, so that activations and gradients have a trained network's scale."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean over all batches seen, of which there is one
    with torch.no_grad():
        module.train()(inputs)
    module.eval()
