"""The networks that tests share, and statistics for their BatchNorms that a trained network could have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from examples.models import mcunet, mobilenet_v2, mobilenet_v3, preact_resnet, resnet18, resnet50

__all__ = ["ZOO", "lively", "mcunet", "mobilenet_v2", "mobilenet_v3", "preact_resnet", "resnet18", "resnet50"]

#: small instances by name: how to make each, and an input size that suits it
ZOO = {
    "mobilenet_v2": (lambda: mobilenet_v2(0.35, 10), 64),
    "mobilenet_v3": (lambda: mobilenet_v3(10), 64),
    "mcunet": (lambda: mcunet(0.25, 10), 64),
    "resnet18": (lambda: resnet18(10), 32),
    "resnet50": (lambda: resnet50(10), 32),
    "preact_resnet": (lambda: preact_resnet(10), 16),
}


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every BatchNorm statistics, scale and shift that differ by channel; some scales are negative."""
    generator = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, _BatchNorm):
            spreads = ((m.running_mean, -0.3, 0.3), (m.running_var, 0.5, 2.0), (m.weight, 0.5, 1.2), (m.bias, -0.2, 0.5))
            for tensor, low, high in spreads:
                if tensor is not None:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            if m.weight is not None:
                m.weight.data[::5] *= -1
    return model
