"""A small MobileNetV2-style network (Sandler et al., 2018) for the digits, and its training on the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from examples.digits.world import Split

STAGES = ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (64, 2), (64, 1))  #: channels and stride of each block
EXPANSION = 4


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU6(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    """Expand by a 1×1 convolution, filter each channel, project back; with a residual where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * inputs
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv(inputs, hidden), _conv(hidden, hidden, 3, stride, hidden), _conv(hidden, outputs, act=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class DigitNet(nn.Module):
    """f32[n, 1, 32, 32] to the scores of ten digits."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(1, 16, 3)]
        channels = 16
        for outputs, stride in STAGES:
            layers.append(InvertedResidual(channels, outputs, stride))
            channels = outputs
        self.features = nn.Sequential(*layers, _conv(channels, 128))
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the split that the model gets right."""
    with torch.no_grad():
        return (model(split.inputs).argmax(1) == split.targets).float().mean().item()


def pretrain(split: Split, epochs: int, progress: Callable[[], object]) -> DigitNet:
    """Train a network from scratch with PyTorch, in the clean world; returned in evaluation mode."""
    torch.manual_seed(0)
    model = DigitNet()
    batch = 32
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs * (len(split.inputs) // batch))
    for _ in range(epochs):
        for rows in torch.randperm(len(split.inputs)).split(batch):
            if len(rows) < batch:
                continue
            optimizer.zero_grad()
            functional.cross_entropy(model(split.inputs[rows]), split.targets[rows]).backward()
            optimizer.step()
            schedule.step()
        progress()
    return model.eval()
