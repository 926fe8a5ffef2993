"""For tests: small networks as graphs, run by the ops' reference results and, independently, by torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph, Node
from edgekit.graph.model import Binding, Layout, Model, Trainable
from edgekit.graph.op import Array
from edgekit.graph.ops.conv import Conv2d, Conv2dInputGrad
from edgekit.graph.ops.elementwise import Affine, Binary, Unary
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.linear import Linear, LinearInputGrad
from edgekit.graph.ops.loss import CrossEntropy
from edgekit.graph.ops.pool import AdaptiveAvgPool2d, MaxPool2d
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.ops.update import LinearSgd
from edgekit.graph.value import DType, Value


class Everything:
    """A backend with a kernel for all that there is."""

    name = "everything"
    backend = 1
    caches = False
    small = False

    def supports(self, _node: Node) -> bool:
        return True


class Nothing(Everything):
    """A backend without fused kernels."""

    def supports(self, node: Node) -> bool:
        plain = getattr(node.op, "act", Function.IDENTITY) is Function.IDENTITY and not isinstance(node.op, LinearSgd)
        first = (
            3 if isinstance(node.op, (Conv2d, Linear)) else 2 if isinstance(node.op, (Conv2dInputGrad, LinearInputGrad)) else 8
        )
        return plain and all(v is None for v in node.inputs[first:])


def torch_gradients(
    graph: Graph, loss: Value, wanted: list[Value], feeds: Mapping[Value, Array]
) -> tuple[float, list[Array | None]]:
    """The loss and its gradients by torch autograd, in float64."""
    values: dict[Value, torch.Tensor] = {}
    for v, a in [*graph.constants.items(), *graph.state.items(), *feeds.items()]:
        values[v] = torch.tensor(a, dtype=torch.float64 if v.dtype is DType.F32 else torch.int64)
    for v in wanted:
        values[v].requires_grad_()
    for node in graph.nodes:
        assert node.outputs[0] is not None
        values[node.outputs[0]] = _torch_op(node, [None if v is None else values[v] for v in node.inputs])
    found = torch.autograd.grad(values[loss], [values[v] for v in wanted], allow_unused=True)
    return values[loss].item(), [None if g is None else g.numpy() for g in found]


_FUNCTIONS = {
    Function.RELU: F.relu,
    Function.RELU6: F.relu6,
    # torch's own hardswish and hardsigmoid hold 1/6 in float32 even for float64
    Function.HARDSWISH: lambda x: x * F.relu6(x + 3) / 6,
    Function.HARDSIGMOID: lambda x: F.relu6(x + 3) / 6,
    Function.SILU: F.silu,
    Function.SIGMOID: torch.sigmoid,
    Function.TANH: torch.tanh,
}


def _torch_op(node: Node, a: list[torch.Tensor | None]) -> torch.Tensor:
    op = node.op
    if isinstance(op, Conv2d):
        top, bottom, left, right = op.padding
        x = F.pad(a[0].permute(0, 3, 1, 2), (left, right, top, bottom))
        return F.conv2d(x, a[1].permute(3, 2, 0, 1), a[2], op.stride, 0, op.dilation, op.groups).permute(0, 2, 3, 1)
    if isinstance(op, Linear):
        return a[0] @ a[1] + (0 if a[2] is None else a[2])
    if isinstance(op, Affine):
        return a[0] * a[1] + a[2]
    if isinstance(op, Unary):
        return _FUNCTIONS[op.fn](a[0])
    if isinstance(op, Binary):
        return a[0] + a[1] if op.fn is Arithmetic.ADD else a[0] * a[1]
    if isinstance(op, Reshape):
        return a[0].reshape(node.outputs[0].shape)
    if isinstance(op, AdaptiveAvgPool2d):
        return F.adaptive_avg_pool2d(a[0].permute(0, 3, 1, 2), op.output).permute(0, 2, 3, 1)
    if isinstance(op, MaxPool2d):
        return F.max_pool2d(a[0].permute(0, 3, 1, 2), op.kernel, op.stride, op.padding[::2]).permute(0, 2, 3, 1)
    if isinstance(op, CrossEntropy):
        return F.cross_entropy(a[0], a[1], reduction="sum" if op.reduction is Reduction.SUM else "mean")
    raise NotImplementedError(op.name)


class Net:
    """Builds a forward graph layer by layer, every weight and bias a state."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.build = Builder()
        self.rng = np.random.default_rng(seed)
        self.x = self.build.input("x", shape)
        self.shape = shape
        self.count = 0

    def conv(self, x: Value, out: int, k: int = 3, stride: int = 1, groups: int = 1, act: Function = Function.IDENTITY) -> Value:
        self.count += 1
        c, p = x.shape[3] // groups, k // 2
        w = self.build.state(f"conv{self.count}.weight", self.rng.standard_normal((k, k, c, out)) / np.sqrt(k * k * c))
        b = self.build.state(f"conv{self.count}.bias", 0.1 * self.rng.standard_normal(out))
        y = self.build(Conv2d((stride, stride), (p, p, p, p), (1, 1), groups), x, w, b, name=f"conv{self.count}")
        return y if act is Function.IDENTITY else self.act(y, act)

    def act(self, x: Value, fn: Function) -> Value:
        return self.build(Unary(fn), x, name=f"{x.name}.{fn.name.lower()}")

    def affine(self, x: Value) -> Value:
        self.count += 1
        scale = self.build.state(f"affine{self.count}.scale", 1 + 0.1 * self.rng.standard_normal(x.shape[-1]))
        shift = self.build.state(f"affine{self.count}.shift", 0.1 * self.rng.standard_normal(x.shape[-1]))
        return self.build(Affine(), x, scale, shift)

    def add(self, a: Value, b: Value) -> Value:
        return self.build(Binary(Arithmetic.ADD), a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.build(Binary(Arithmetic.MUL), a, b)

    def maxpool(self, x: Value) -> Value:
        return self.build(MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), x)

    def global_pool(self, x: Value) -> Value:
        return self.build(AdaptiveAvgPool2d((1, 1)), x)

    def linear(self, x: Value, out: int) -> Value:
        self.count += 1
        w = self.build.state(f"linear{self.count}.weight", self.rng.standard_normal((x.shape[-1], out)) / np.sqrt(x.shape[-1]))
        b = self.build.state(f"linear{self.count}.bias", 0.1 * self.rng.standard_normal(out))
        return self.build(Linear(), x, w, b, name=f"linear{self.count}")

    def classify(self, x: Value, classes: int) -> Model:
        """Global pooling, a linear layer, cross-entropy."""
        flat = self.build(Reshape.to((x.shape[0], x.shape[3])), self.global_pool(x))
        logits = self.linear(flat, classes)
        targets = self.build.input("targets", (x.shape[0],), DType.I32)
        loss = self.build(CrossEntropy(), logits, targets, name="loss")
        graph = self.build.graph
        graph.outputs = [logits, loss]
        return Model(graph, [self.x], targets, [logits], loss, {}, [], classes, -100)

    def feeds(self, model: Model) -> dict[Value, Array]:
        assert model.targets is not None
        assert model.classes is not None
        return {
            self.x: self.rng.standard_normal(self.shape),
            model.targets: self.rng.integers(0, model.classes, model.targets.shape).astype(np.int32),
        }


def trainable(value: Value, channels: int | None = None, in_axis: int | None = None, **arrays: Array) -> Trainable:
    return Trainable(
        value,
        Binding(value.name, (value.name,), Layout.permuted(value.shape, tuple(range(len(value.shape))))),
        channels,
        in_axis,
        **arrays,
    )


def train_only(model: Model, names: Mapping[str, int | None]) -> list[Trainable]:
    """Trainables for these states (with channels or None); all other states become constants."""
    graph = model.graph
    chosen = []
    for v in list(graph.state):
        if v.name not in names:
            graph.constants[v] = graph.state.pop(v)
            continue
        axis = 0 if len(v.shape) == 2 else 3 if len(v.shape) == 4 and v.shape[2] == 1 else 2
        chosen.append(trainable(v, names[v.name], None if len(v.shape) == 1 else axis))
    return chosen


def everything(model: Model) -> list[Trainable]:
    return train_only(model, {v.name: None for v in model.graph.state})


def inverted_residuals(blocks: int = 2, width: int = 6) -> tuple[Net, Model]:
    """MobileNetV2's way of building, small."""
    net, act = Net((2, 8, 8, 3)), Function.RELU6
    x = net.conv(net.x, width, 3, 2, act=act)
    for _ in range(blocks):
        y = net.conv(x, 3 * width, 1, act=act)
        y = net.conv(y, 3 * width, 3, groups=3 * width, act=act)
        x = net.add(x, net.conv(y, width, 1))
    return net, net.classify(net.conv(x, 4 * width, 1, act=act), 5)


def residuals(shape: tuple[int, ...] = (2, 9, 9, 3), width: int = 8) -> tuple[Net, Model]:
    """ResNet's way of building, small, with a grouped convolution and one that downsamples."""
    net = Net(shape)
    x = net.maxpool(net.conv(net.x, width, 3, act=Function.RELU))
    y = net.conv(net.conv(x, width, 3, act=Function.RELU), width, 3, groups=2)
    x = net.act(net.add(y, x), Function.RELU)
    y = net.conv(net.conv(x, 2 * width, 3, 2, act=Function.RELU), 2 * width, 3)
    x = net.act(net.add(y, net.conv(x, 2 * width, 1, 2)), Function.RELU)
    return net, net.classify(x, 5)


def gated(shape: tuple[int, ...] = (2, 8, 8, 3), width: int = 8) -> tuple[Net, Model]:
    """MobileNetV3's way: hardswish and squeeze-and-excitation; and a pre-activation block with affine layers."""
    net = Net(shape)
    x = net.conv(net.x, width, 3, 2, act=Function.HARDSWISH)
    squeezed = net.conv(net.conv(net.global_pool(x), 4, 1, act=Function.RELU), width, 1, act=Function.HARDSIGMOID)
    x = net.mul(x, squeezed)
    y = net.act(net.affine(net.conv(net.act(net.affine(x), Function.RELU), width, 3)), Function.SILU)
    return net, net.classify(net.add(x, net.affine(y)), 5)


def mobilenet_v2(batch: int = 8, size: int = 224) -> tuple[Net, Model]:
    """MobileNetV2-1.0 (Sandler et al. 2018, table 2)."""
    net = Net((batch, size, size, 3))
    x = net.conv(net.x, 32, 3, 2, act=Function.RELU6)
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, width, repeats, stride in table:
        for i in range(repeats):
            x = inverted_residual(net, x, expand, width, 3, stride if i == 0 else 1)
    return net, net.classify(net.conv(x, 1280, 1, act=Function.RELU6), 1000)


def mcunet(batch: int = 8, size: int = 96) -> tuple[Net, Model]:
    """Like MCUNet (Lin et al. 2020): inverted residuals of changing expansion and kernel."""
    net = Net((batch, size, size, 3))
    x = net.conv(net.x, 16, 3, 2, act=Function.RELU6)
    table = [
        (1, 8, 3, 1),
        (3, 16, 7, 2),
        (4, 16, 5, 1),
        (5, 24, 5, 2),
        (3, 24, 3, 1),
        (6, 40, 7, 2),
        (4, 48, 5, 1),
        (5, 96, 5, 2),
        (6, 160, 7, 1),
    ]
    for expand, width, kernel, stride in table:
        x = inverted_residual(net, x, expand, width, kernel, stride)
    return net, net.classify(x, 10)


def inverted_residual(net: Net, x: Value, expand: int, width: int, kernel: int, stride: int) -> Value:
    wide = expand * x.shape[3]
    y = net.conv(x, wide, 1, act=Function.RELU6) if expand > 1 else x
    y = net.conv(net.conv(y, wide, kernel, stride, groups=wide, act=Function.RELU6), width, 1)
    return net.add(x, y) if y.shape == x.shape else y


def resnet18(batch: int = 8, size: int = 224) -> tuple[Net, Model]:
    """ResNet-18 (He et al. 2015)."""
    net = Net((batch, size, size, 3))
    net.count = 0
    x = net.maxpool(net.conv(net.x, 64, 7, 2, act=Function.RELU))
    for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = net.conv(net.conv(x, width, 3, stride, act=Function.RELU), width, 3)
        short = x if x.shape == y.shape else net.conv(x, width, 1, stride)
        x = net.act(net.add(y, short), Function.RELU)
    return net, net.classify(x, 1000)
