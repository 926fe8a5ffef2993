"""Quantised networks: the integer forward is PyTorch's integer arithmetic to the bit, and training follows float32 training."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import edgekit
from edgekit.compiler.layout import move_permutes
from edgekit.errors import InputError, UnsupportedError
from edgekit.frontends.torch import capture
from edgekit.graph.entry import Role
from edgekit.graph.graph import Graph
from edgekit.graph.interpret import interpret
from edgekit.graph.ops.quantized import QAdd, QConv2d, QMean, Quantize, fixed_point
from edgekit.graph.ops.shape import Permute, Reshape
from edgekit.graph.ops.update import SgdUpdate
from edgekit.graph.value import DType, Value
from edgekit.program.inspect import inspect
from edgekit.training.fold import fold
from edgekit.training.plan import make_plan, restrict
from edgekit.training.quantize import Quantized, Range, quantization, quantize
from edgekit.training.scheme import Update, choose


class Block(nn.Module):
    """Expand, depthwise, project, with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(24, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 3, 12, 12))
    return model.eval()


def quantized(model: nn.Module, samples: torch.Tensor, update: Update = "full", batch: int = 4, scaled: bool = True) -> Quantized:
    captured = capture(model, (samples[:batch], torch.zeros(batch, dtype=torch.long)), "cross_entropy")
    folded, trainables = fold(move_permutes(captured), choose(captured, update).fractions)
    return quantize(folded, trainables, [samples.numpy()], scaled_updates=scaled)


def simulate(graph: Graph, feeds: dict[Value, torch.Tensor]) -> dict[Value, torch.Tensor]:
    """The integer ops by PyTorch's int64 and float64 operators, NCHW, from the text of docs/quantization.md alone."""
    made = dict(feeds)
    made.update({v: torch.from_numpy(np.asarray(a)) for v, a in (graph.constants | graph.state).items()})

    def rescaled(total: torch.Tensor, factor: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        fraction, exponent = torch.frexp(factor)
        m = torch.round(fraction * 2.0**31).long()
        m, exponent = torch.where(m == 2**31, m // 2, m), exponent.long() + (m == 2**31)
        total = total.clamp(-(2**31), 2**31 - 1)
        half = torch.bitwise_left_shift(torch.ones_like(exponent), 30 - exponent)
        return torch.bitwise_right_shift(total * m + half, 31 - exponent) + zero.long()

    for node in graph.nodes:
        inputs = [None if v is None else made[v] for v in node.inputs]
        match node.op:
            case QConv2d(stride=stride, padding=padding, dilation=dilation, groups=groups):
                x, w, scale, xq, yq, bias, rest = inputs
                w = w if rest is None else torch.cat([w, rest], 2)
                top, bottom, left, right = padding
                image = functional.pad((x.double() - xq[1].double()).permute(0, 3, 1, 2), (left, right, top, bottom))
                total = functional.conv2d(image, w.double().permute(3, 2, 0, 1), None, stride, 0, dilation, groups)
                total = total.permute(0, 2, 3, 1).long() + (0 if bias is None else bias.long())
                unit = xq[0].double() * scale.double()
                if node.op.real:
                    result = (total.double() * unit).float()
                else:
                    result = rescaled(total, unit / yq[0].double(), yq[1]).clamp(-128, 127)
            case QAdd():
                a, b, aq, bq, yq = inputs
                fa, fb = aq[0].double() / yq[0].double(), bq[0].double() / yq[0].double()
                shift = 20 - int(torch.frexp(torch.maximum(fa, fb))[1])
                ma, mb = torch.round(fa * 2.0**shift).long(), torch.round(fb * 2.0**shift).long()
                total = (a.long() - aq[1].long()) * ma + (b.long() - bq[1].long()) * mb
                result = (torch.div(total + 2 ** (shift - 1), 2**shift, rounding_mode="floor") + yq[1].long()).clamp(-128, 127)
            case QMean():
                x, xq, yq = inputs
                total = (x.long() - xq[1].long()).sum((1, 2), keepdim=True)
                factor = xq[0].double() / (yq[0].double() * x.shape[1] * x.shape[2])
                result = rescaled(total, factor, yq[1]).clamp(-128, 127)
            case Reshape():
                result = inputs[0].reshape(node.outputs[0].shape)
            case Permute():
                result = inputs[0].permute(node.op.axes)
            case _:
                raise AssertionError(f"{node.op.name} is no op of this network's forward pass")
        made[node.outputs[0]] = result
    return made


def test_integer_forward_is_pytorchs_to_the_bit(net: Net) -> None:
    samples = torch.randn(16, 3, 12, 12) * 1.5
    whole = quantized(net, samples)
    graph = restrict(whole.model.graph, whole.model.outputs)
    graph.validate()
    assert not any(isinstance(n.op, Quantize) for n in graph.nodes), "the whole network is integers"
    scale, zero = whole.inputs[0]
    for size in (1.0, 3.0):  # in range, and with much cut off
        x = np.clip(np.rint(samples[:4].numpy() * size / scale) + zero, -128, 127).astype(np.int8)
        ours = interpret(graph, {whole.model.inputs[0]: x}, dtype=np.float32)
        theirs = simulate(graph, {whole.model.inputs[0]: torch.from_numpy(x)})
        for node in graph.nodes:
            y = node.outputs[0]
            assert y is not None
            np.testing.assert_array_equal(ours[y], theirs[y].numpy(), err_msg=node.op.name)
        if size == 1.0:
            reference = net(samples[:4]).detach().numpy()
            assert np.abs(ours[whole.model.outputs[0]] - reference).max() < 0.05 * np.abs(reference).max()


def straight_through(whole: Quantized, x: np.ndarray, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of the trained arrays, as real numbers, by autograd in float64: each result is the integer op's, its slope
    that of the real op, and 0 where it was clamped."""
    graph = restrict(whole.model.graph, whole.model.outputs)
    integers = simulate(graph, {whole.model.inputs[0]: torch.from_numpy(x)})
    constants = {v: torch.from_numpy(np.asarray(a)).double() for v, a in (graph.constants | graph.state).items()}
    leaves = {
        t.value: (constants[t.value] * torch.from_numpy(np.asarray(t.scale, np.float64))).requires_grad_()
        for t in whole.trainables
    }
    real: dict[Value, torch.Tensor] = {}

    def number(v: Value, quant: Value) -> torch.Tensor:
        scale, zero = constants[quant]
        return real[v] if v in real else (integers[v].double() - zero) * scale

    def number_of(v: Value, scale: torch.Tensor) -> torch.Tensor:
        """A weight or a bias, trained or not."""
        return leaves[v] if v in leaves else constants[v] * scale

    for node in graph.nodes:
        inputs, y = node.inputs, node.outputs[0]
        assert y is not None
        match node.op:
            case QConv2d(stride=stride, padding=(top, bottom, left, right), dilation=dilation, groups=groups):
                image = functional.pad(number(inputs[0], inputs[3]).permute(0, 3, 1, 2), (left, right, top, bottom))
                rest = [] if inputs[6] is None else [constants[inputs[6]] * constants[inputs[2]]]
                w = torch.cat([number_of(inputs[1], constants[inputs[2]]), *rest], 2).permute(3, 2, 0, 1)
                smooth = functional.conv2d(
                    image, w, number_of(inputs[5], constants[inputs[3]][0] * constants[inputs[2]]), stride, 0, dilation, groups
                ).permute(0, 2, 3, 1)
                quant = inputs[4]
            case QAdd():
                smooth, quant = number(inputs[0], inputs[2]) + number(inputs[1], inputs[3]), inputs[4]
            case QMean():
                smooth, quant = number(inputs[0], inputs[1]).mean((1, 2), keepdim=True), inputs[2]
            case _:
                source = real.get(inputs[0])
                if source is not None:
                    real[y] = source.permute(node.op.axes) if isinstance(node.op, Permute) else source.reshape(y.shape)
                continue
        if quant is None:
            real[y] = smooth + (integers[y].double() - smooth).detach()
            continue
        scale, zero = constants[quant]
        before = torch.floor(smooth / scale + 0.5) + zero
        kept = ((before >= -128) & (before <= 127)).double()
        real[y] = kept * smooth + ((integers[y].double() - zero) * scale - kept * smooth).detach()
    functional.cross_entropy(real[whole.model.outputs[0]], targets).backward()
    return {v.name: leaf.grad for v, leaf in leaves.items() if leaf.grad is not None}


IN_PART: Update = {"blocks.1.*.0.weight": 0.5, "classifier.*": 0.5, "blocks.0.*.bias": 1.0}


@pytest.mark.parametrize(("update", "size"), [("full", 1.0), ("full", 2.5), (IN_PART, 1.0)])
def test_gradients_are_those_of_straight_through_autograd(net: Net, update: Update, size: float) -> None:
    samples = torch.randn(8, 3, 12, 12)
    whole = quantized(net, samples, update)
    scale, zero = whole.inputs[0]
    x = np.clip(np.rint(samples[:4].numpy() * size / scale) + zero, -128, 127).astype(np.int8)
    targets = torch.tensor([0, 1, 2, 3])
    theirs = straight_through(whole, x, targets)
    entry = make_plan(whole.model, whole.trainables, edgekit.SGD())["train_step"]
    feeds = {Role.INPUT: x, Role.TARGET: targets.numpy().astype(np.int32), Role.STEP: np.zeros(2, np.int32)}
    made = interpret(entry.graph, {p.value: feeds[p.role] for p in entry.ports if p.role in feeds})
    updates = [n for n in entry.graph.nodes if isinstance(n.op, SgdUpdate)]
    assert len(updates) == len(theirs) == (16 if update == "full" else len(whole.trainables))
    if update != "full":
        expand = next(t.value for t in whole.trainables if t.value.name == "blocks.1.expand.0.weight")
        assert expand.shape == (1, 1, 4, 24), "what is not trained is no state"
    for node in updates:
        param, grad = node.inputs[:2]
        judge = theirs[param.name].numpy()[node.op.block(grad.shape)]
        np.testing.assert_allclose(made[grad].reshape(judge.shape), judge, rtol=1e-6, atol=1e-6 * np.abs(judge).max())


def test_every_operator_has_its_integer_form(net: Net) -> None:
    whole = quantized(net, torch.randn(8, 3, 12, 12))
    kinds = {type(n.op) for n in restrict(whole.model.graph, whole.model.outputs).nodes}
    assert kinds == {Permute, QConv2d, QAdd, QMean, Reshape}
    assert whole.model.inputs[0].dtype is DType.I8
    assert {t.value.dtype for t in whole.trainables} == {DType.I8, DType.I32}


def test_what_has_no_integer_form_computes_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Hardswish(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, groups=2), nn.Flatten()).eval()
    samples = torch.randn(32, 3, 8, 8)
    captured = capture(model, (samples[:4], torch.zeros(4, 6)), "mse")
    folded, trainables = fold(move_permutes(captured), choose(captured, "full").fractions)
    whole = quantize(folded, trainables, [samples.numpy()])
    graph = restrict(whole.model.graph, whole.model.outputs)
    scale, zero = whole.inputs[0]
    x = np.clip(np.rint(samples[:4].numpy() / scale) + zero, -128, 127).astype(np.int8)
    made = interpret(graph, {whole.model.inputs[0]: x}, dtype=np.float32)[whole.model.outputs[0]]
    assert np.abs(made - model(samples[:4]).detach().numpy()).max() < 0.05


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-7.0, -2.0), (2.0, 5.0), (0.0, 0.0), (-1e-20, 0.0)])
def test_ranges_hold_zero_exactly(low: float, high: float) -> None:
    scale, zero = quantization(Range(low, high)).tolist()
    assert zero == round(zero)
    assert -128 <= zero <= 127
    assert (-128 - zero) * scale <= low + scale
    assert (127 - zero) * scale >= high - scale


def test_fixed_point_keeps_31_bits() -> None:
    factors = np.array([1.0, 0.5, 1 - 2.0**-40, 3e-5, 0.7, 2.0**16, 2.0**-31, 2.0**-32, 0.0, np.inf, -1.0])
    m, shift = fixed_point(factors)
    good = (factors >= 2.0**-31) & (factors <= 2.0**16)
    np.testing.assert_allclose((m / 2.0**shift)[good], factors[good], rtol=2.0**-31)
    assert not m[~good].any()
    assert (m < 2**31).all()


def test_calibration_must_fit(net: Net) -> None:
    captured = capture(net, (torch.randn(2, 3, 12, 12), torch.zeros(2, dtype=torch.long)), "cross_entropy")
    folded, trainables = fold(move_permutes(captured), {"classifier.bias": 1.0})
    with pytest.raises(InputError, match="fill no batch"):
        quantize(folded, trainables, [np.zeros((1, 3, 12, 12), np.float32)])
    with pytest.raises(InputError, match="calibration inputs of shape"):
        quantize(folded, trainables, [np.zeros((4, 3, 10, 10), np.float32)])
    with pytest.raises(InputError, match="2 calibration arrays for 1 inputs"):
        quantize(folded, trainables, [np.zeros((4, 3, 12, 12), np.float32)] * 2)


def test_dropout_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    model[1].train()
    with pytest.raises(UnsupportedError, match="dropout"):
        quantized(model, torch.randn(8, 4))


@pytest.fixture(autouse=True)
def _runs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders lie below the current folder."""
    monkeypatch.chdir(tmp_path)


def trained(net: Net, steps: int, quantize: edgekit.Int8 | None, **options: object) -> tuple[list[float], Net]:
    """The losses of so many steps on the local runner, and the network with what it learned."""
    torch.manual_seed(1)
    inputs, targets = torch.randn(64, 3, 12, 12), torch.arange(64) % 5
    inputs += functional.one_hot(targets, 5).float()[:, :3, None, None]
    program = edgekit.compile(net, (inputs[:8], targets[:8]), quantize=quantize, **options)  # type: ignore[arg-type]
    model = copy.deepcopy(net)
    with edgekit.connect("local") as device:
        session = device.train(program, {"inputs": inputs, "targets": targets}, epochs=steps // 8, shuffle=False)
        losses = [record.loss for record in session]
        session.write_back(model)
    return losses, model


SCHEMES = {
    "full": {"update": "full", "optimizer": edgekit.SGD(lr=0.05)},
    "sliced": {"update": {"blocks.1.*.0.weight": 0.5, "classifier.*": 0.5}, "optimizer": edgekit.SGD(lr=0.2)},
    "momentum": {"update": "last:1", "optimizer": edgekit.SGD(lr=0.02, momentum=0.9, weight_decay=1e-3), "clip_norm": 2.0},
    "accumulated": {"update": "bias:4", "optimizer": edgekit.SGD(lr=1.0), "accumulate": 2},
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_training_follows_float32_training(net: Net, scheme: str) -> None:
    steps = 48
    plain, before = trained(net, steps, None, **SCHEMES[scheme])
    whole, after = trained(net, steps, edgekit.Int8(3 * torch.randn(64, 3, 12, 12)), **SCHEMES[scheme])
    half = len(plain) // 2
    gained = np.mean(plain[:4]) - np.mean(plain[half:])
    assert gained > 0.02, "float32 training learns"
    assert np.mean(whole[half:]) - np.mean(plain[half:]) < 0.5 * gained, "8 channels leave much to rounding"
    for name, p in before.named_parameters():
        start, ours, theirs = net.get_parameter(name), after.get_parameter(name), p
        moved = (theirs - start).norm()
        assert (moved > 0) == bool((ours - start).norm() > 0), f"{name} is trained in one of the two only"


def test_without_scaling_weights_stand_still(net: Net) -> None:
    samples = torch.randn(64, 3, 12, 12) * 1.2
    options = {"update": "full", "optimizer": edgekit.SGD(lr=0.05)}
    scaled, _ = trained(net, 48, edgekit.Int8(samples), **options)
    unscaled, _ = trained(net, 48, edgekit.Int8(samples, scaled_updates=False), **options)
    assert np.mean(scaled[-8:]) < np.mean(unscaled[-8:]) - 0.02


def test_a_session_repeats_to_the_bit(net: Net) -> None:
    options = {"update": "last:1", "optimizer": edgekit.SGD(lr=0.05)}
    runs = [trained(net, 16, edgekit.Int8(torch.linspace(-2, 2, 8 * 432).reshape(8, 3, 12, 12)), **options)[0] for _ in range(2)]
    assert runs[0] == runs[1]


def test_trained_integers_count_a_byte_each(net: Net) -> None:
    inputs = torch.linspace(-2, 2, 8 * 432).reshape(8, 3, 12, 12)
    program = edgekit.compile(net, (inputs, torch.arange(8) % 5), update="full", quantize=edgekit.Int8(inputs))
    report = inspect(program)
    assert {u.bytes for u in report.updated if u.value == "classifier.weight"} == {net.classifier.weight.numel()}
    assert report.updated_bytes == sum(u.bytes for u in report.updated) <= report.parameter_bytes
