"""Networks in plain PyTorch for tests, benchmarks and examples, with torchvision's layouts and parameter names where it has them.

All are returned in evaluation mode with fresh weights. Sources: MobileNetV2 (Sandler et al., 2018), MobileNetV3 (Howard et al.,
2019), ResNet (He et al., 2015 and, pre-activation, 2016), MCUNet (Lin et al., 2020: its search space, not its exact network).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


def _divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple of ``by``, not more than a tenth below (Sandler et al.'s rule)."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


class Conv2dNormActivation(nn.Sequential):
    """Convolution, BatchNorm, activation (``act`` None: none)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU6,
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), *([] if act is None else [act()]))


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise k×k, 1×1 projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, kernel: int = 3) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        widen = [] if expand == 1 else [Conv2dNormActivation(inputs, hidden, 1)]
        depthwise = Conv2dNormActivation(hidden, hidden, kernel, stride, hidden)
        self.conv = nn.Sequential(*widen, depthwise, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Parameter names as torchvision's: features.N..., classifier.1."""

    def __init__(
        self, width: float, classes: int, settings: Sequence[tuple[int, int, int, int, int]], stem: int, last: int
    ) -> None:
        super().__init__()
        channels = _divisible(stem * width)
        layers: list[nn.Module] = [Conv2dNormActivation(3, channels, 3, 2)]
        for expand, base, repeats, stride, kernel in settings:
            outputs = _divisible(base * width)
            for i in range(repeats):
                layers.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expand, kernel))
                channels = outputs
        final = _divisible(last * max(1.0, width))
        self.features = nn.Sequential(*layers, Conv2dNormActivation(channels, final, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(final, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(pooled, 1))


def mobilenet_v2(width: float = 1.0, classes: int = 1000) -> nn.Module:
    """MobileNetV2 for inputs of any size from 32×32, best 224×224."""
    repeats = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    return _ready(MobileNetV2(width, classes, [(*row, 3) for row in repeats], 32, 1280))


def mcunet(width: float = 0.5, classes: int = 10) -> nn.Module:
    """A network from MCUNet's search space (inverted residuals of kernel 3, 5 and 7), for about 128×128."""
    settings = [
        (1, 16, 1, 1, 3),
        (4, 24, 1, 2, 7),
        (5, 24, 2, 1, 5),
        (6, 40, 1, 2, 7),
        (4, 40, 2, 1, 3),
        (6, 80, 1, 2, 5),
        (5, 80, 1, 1, 7),
        (4, 96, 2, 1, 5),
        (6, 192, 1, 2, 7),
        (5, 192, 2, 1, 3),
        (6, 320, 1, 1, 5),
    ]
    return _ready(MobileNetV2(width, classes, settings, 32, 320))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride), 1×1 to four times the channels, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Parameter names as torchvision's."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], repeats: Sequence[int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, layers = 64, []
        for i, count in enumerate(repeats):
            blocks = []
            for j in range(count):
                blocks.append(block(inputs, 64 << i, 2 if i and j == 0 else 1))
                inputs = (64 << i) * block.expansion
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        return self.fc(torch.flatten(self.avgpool(y), 1))


def resnet18(classes: int = 1000) -> nn.Module:
    return _ready(ResNet(BasicBlock, (2, 2, 2, 2), classes))


def resnet50(classes: int = 1000) -> nn.Module:
    return _ready(ResNet(Bottleneck, (3, 4, 6, 3), classes))


class SqueezeExcitation(nn.Module):
    """Channels weighed by what the whole image says."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class SqueezedResidual(nn.Module):
    """MobileNetV3's block: an inverted residual with squeeze-and-excitation."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, squeeze: bool, act: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        layers: list[nn.Module] = [] if hidden == inputs else [Conv2dNormActivation(inputs, hidden, 1, act=act)]
        layers.append(Conv2dNormActivation(hidden, hidden, kernel, stride, hidden, act))
        layers += [SqueezeExcitation(hidden, _divisible(hidden / 4))] if squeeze else []
        self.block = nn.Sequential(*layers, Conv2dNormActivation(hidden, outputs, 1, act=None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """The kinds of layer of MobileNetV3-small, fewer of them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        relu, swish = nn.ReLU, nn.Hardswish
        self.features = nn.Sequential(
            Conv2dNormActivation(3, 16, 3, 2, act=swish),
            SqueezedResidual(16, 16, 16, 3, 2, True, relu),
            SqueezedResidual(16, 72, 24, 3, 2, False, relu),
            SqueezedResidual(24, 88, 24, 3, 1, False, relu),
            SqueezedResidual(24, 96, 40, 5, 2, True, swish),
            SqueezedResidual(40, 240, 40, 5, 1, True, swish),
            Conv2dNormActivation(40, 240, 1, act=swish),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(240, 128), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(128, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def mobilenet_v3(classes: int = 10) -> nn.Module:
    """A small MobileNetV3-like network for inputs from 64×64."""
    return _ready(MobileNetV3(classes))


class PreactBlock(nn.Module):
    """BatchNorm and ReLU before each convolution: the first norm has no convolution before it to fold into."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(torch.relu(self.bn2(self.conv1(y)))) + identity


class PreactResNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1)
        self.blocks = nn.Sequential(PreactBlock(16, 16, 1), PreactBlock(16, 32, 2), PreactBlock(32, 64, 2))
        self.bn = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.blocks(self.conv(x))))
        return self.fc(y.mean((2, 3)))


def preact_resnet(classes: int = 10) -> nn.Module:
    """A small pre-activation ResNet for inputs from 16×16."""
    return _ready(PreactResNet(classes))


def _ready(model: nn.Module) -> nn.Module:
    """He initialisation for convolutions, as the papers' code has it, and evaluation mode."""
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return model.eval()


def mobilenet_v2_example() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """MobileNetV2-1.0 for ten classes and a batch to compile it with: what the README compiles."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(8, 3, 128, 128, generator=generator), torch.randint(10, (8,), generator=generator)
    return _ready(mobilenet_v2(1.0, 10)), batch
