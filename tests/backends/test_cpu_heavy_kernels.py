"""linear, conv2d and their gradients of every instruction set against PyTorch in float64, for any shape.

The driver puts an unreadable page behind every operand and NaN into results and scratch, so these tests also show that
a kernel reads nothing past its operands and writes every element.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.kernels.driver import Answer, Bits, Case, Out, run

Floats = npt.NDArray[np.float32]
IDENTITY, RELU, RELU6, HARDSWISH, HARDSIGMOID = range(5)
LINEAR, LINEAR_INPUT_GRAD, LINEAR_WEIGHT_GRAD, CONV, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD = range(1, 7)


def usable_isas() -> Iterator[str]:
    """What this machine can run, natively or emulated."""
    if platform.machine() == "x86_64":
        flags = Path("/proc/cpuinfo").read_text()
        yield "plain"
        if "avx2" in flags:
            yield "avx2"
        if "avx512bw" in flags:
            yield "avx512"
    if shutil.which("qemu-aarch64-static"):
        yield "neon"


SLOW = {"neon"}  #: emulated
isas = pytest.mark.parametrize("isa", [pytest.param(i, marks=[pytest.mark.slow] if i in SLOW else []) for i in usable_isas()])
quick = settings(max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))


def activate(act: int, x: torch.Tensor) -> torch.Tensor:
    functions = (lambda v: v, F.relu, F.relu6, F.hardswish, F.hardsigmoid)
    return functions[act](x)


@dataclass(frozen=True)
class Options:
    """What goes around the product."""

    act: int
    bias: bool
    residual: bool
    extra: bool  #: ask for the mask or pre; give an addend
    in_place: bool
    frozen: bool
    threads: int
    seed: int


options = st.builds(
    Options,
    act=st.integers(IDENTITY, HARDSIGMOID),
    bias=st.booleans(),
    residual=st.booleans(),
    extra=st.booleans(),
    in_place=st.booleans(),
    frozen=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)


@dataclass(frozen=True)
class Layer:
    """A layer's geometry; a linear one has ``kernel`` None and x [rows, channels]."""

    x: tuple[int, ...]
    outputs: int
    kernel: tuple[int, int] | None
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    options: Options

    @property
    def w(self) -> tuple[int, ...]:
        cg = self.x[-1] // self.groups
        return (cg, self.outputs) if self.kernel is None else (*self.kernel, cg, self.outputs)

    def apply(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The layer without bias and activation, NHWC."""
        if self.kernel is None:
            return x @ w
        top, bottom, left, right = self.padding
        nchw = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        y = F.conv2d(nchw, w.permute(3, 2, 0, 1).contiguous(), None, self.stride, 0, self.dilation, self.groups)
        return y.permute(0, 2, 3, 1)


@st.composite
def linears(draw: st.DrawFn) -> Layer:
    rows = draw(st.integers(1, 70) | st.integers(300, 1200))
    k, n = draw(st.integers(1, 70) | st.integers(500, 1100)), draw(st.integers(1, 150))
    return Layer((rows, k), n, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, draw(options))


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), draw(pair), draw(pair)
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    low = (max(1, spans[0] - padding[0] - padding[1]), max(1, spans[1] - padding[2] - padding[3]))
    size = (low[0] + draw(st.integers(0, 12)), low[1] + draw(st.integers(0, 24)))
    kind = draw(st.sampled_from(["dense", "dense", "groups", "depthwise", "depthwise"]))
    if kind == "depthwise":
        groups = channels = outputs = draw(st.integers(2, 70))
    else:
        groups = draw(st.integers(2, 4)) if kind == "groups" else 1
        channels, outputs = groups * draw(st.integers(1, 70 // groups)), groups * draw(st.integers(1, 100 // groups))
    return Layer((draw(st.integers(1, 3)), *size, channels), outputs, kernel, stride, padding, dilation, groups, draw(options))


def forward(layer: Layer, x: Floats, w: Floats, rng: np.random.Generator) -> tuple[Case, torch.Tensor]:
    """The case and its pre-activation in float64."""
    pre = layer.apply(torch.from_numpy(x).double(), torch.from_numpy(w).double())
    shape = tuple(pre.shape)
    bias = rng.standard_normal(layer.outputs, np.float32) if layer.options.bias else None
    residual = rng.standard_normal(shape, np.float32) if layer.options.residual else None
    for addend in (bias, residual):
        if addend is not None:
            pre = pre + torch.from_numpy(addend).double()
    masked = layer.options.act in (RELU, RELU6)
    outputs = (
        Out(shape),
        Out(shape, bits=True) if layer.options.extra and masked else None,
        Out(shape) if layer.options.extra and not masked else None,
    )
    attrs = (
        (layer.options.act,)
        if layer.kernel is None
        else (*layer.stride, *layer.padding, *layer.dilation, layer.groups, layer.options.act)
    )
    alias = 3 if layer.options.residual and layer.options.in_place else None
    code = LINEAR if layer.kernel is None else CONV
    constant = (1,) if layer.options.frozen else ()
    return Case(code, (x, w, bias, residual), outputs, attrs, constant, alias, layer.options.threads), pre


def input_grad(layer: Layer, w: Floats, dy: Floats, rng: np.random.Generator) -> tuple[Case, torch.Tensor]:
    x = torch.zeros(layer.x, dtype=torch.float64, requires_grad=True)
    (want,) = torch.autograd.grad(layer.apply(x, torch.from_numpy(w).double()), x, torch.from_numpy(dy).double())
    addend = rng.standard_normal(layer.x, np.float32) if layer.options.extra else None
    if addend is not None:
        want = want + torch.from_numpy(addend).double()
    argument = torch.from_numpy(rng.standard_normal(layer.x, np.float32) * 4).double().requires_grad_()
    result = activate(layer.options.act, argument)
    saved: Floats | Bits | None = None
    if layer.options.act != IDENTITY:
        (want,) = torch.autograd.grad(result, argument, want)
        chosen = argument if layer.options.act == HARDSWISH else result
        saved = chosen.detach().float().numpy()
        if layer.options.act in (RELU, RELU6) and layer.options.bias:
            limit = 6.0 if layer.options.act == RELU6 else np.inf
            saved = Bits((saved > 0) & (saved < limit))
    attrs: tuple[int, ...] = (layer.options.act,)
    if layer.kernel is not None:
        attrs = (*layer.x[1:3], *layer.stride, *layer.padding, *layer.dilation, layer.groups, layer.options.act)
    alias = 2 if addend is not None and layer.options.in_place else None
    code = LINEAR_INPUT_GRAD if layer.kernel is None else CONV_INPUT_GRAD
    constant = (1,) if layer.options.frozen else ()
    return Case(code, (dy, w, addend, saved), (Out(layer.x),), attrs, constant, alias, layer.options.threads), want


def weight_grad(layer: Layer, x: Floats, dy: Floats) -> tuple[Case, torch.Tensor, torch.Tensor]:
    w = torch.zeros(layer.w, dtype=torch.float64, requires_grad=True)
    (dw,) = torch.autograd.grad(layer.apply(torch.from_numpy(x).double(), w), w, torch.from_numpy(dy).double())
    attrs = () if layer.kernel is None else (*layer.kernel, *layer.stride, *layer.padding, *layer.dilation, layer.groups)
    outputs = (Out(layer.w), Out((layer.outputs,)) if layer.options.bias else None)
    code = LINEAR_WEIGHT_GRAD if layer.kernel is None else CONV_WEIGHT_GRAD
    total = torch.from_numpy(dy).double().reshape(-1, layer.outputs).sum(0)
    return Case(code, (x, dy), outputs, attrs, threads=layer.options.threads), dw, total


def assert_near(got: object, want: torch.Tensor, terms: int) -> None:
    """Within float32 rounding of a sum of ``terms`` products of standard normal numbers."""
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=2e-6, atol=3e-6 * (1 + terms**0.5))


def check_forward(layer: Layer, answer: Answer, pre: torch.Tensor) -> None:
    terms = int(np.prod(layer.w[:-1]))
    y, mask, argument = answer.outputs
    assert_near(y, activate(layer.options.act, pre), terms)
    if argument is not None:
        assert_near(argument, pre, terms)
    if mask is not None:
        assert y is not None
        limit = np.float32(6.0 if layer.options.act == RELU6 else np.inf)
        values = y.astype(np.float32)
        np.testing.assert_array_equal(mask, (values > 0) & (values < limit))


def check_layer(isa: str, layer: Layer) -> None:
    rng = np.random.default_rng(layer.options.seed)
    x, w = rng.standard_normal(layer.x, np.float32), rng.standard_normal(layer.w, np.float32)
    first, pre = forward(layer, x, w, rng)
    dy = rng.standard_normal(tuple(pre.shape), np.float32)
    second, dx = input_grad(layer, w, dy, rng)
    third, dw, db = weight_grad(layer, x, dy)
    y_answer, dx_answer, dw_answer = run(isa, [first, second, third])
    check_forward(layer, y_answer, pre)
    assert_near(dx_answer.outputs[0], dx, int(np.prod(layer.w)) // layer.w[-2])
    assert_near(dw_answer.outputs[0], dw, dy.size // layer.outputs)
    if layer.options.bias:
        assert_near(dw_answer.outputs[1], db, dy.size // layer.outputs)


@isas
@given(layer=linears())
@quick
def test_linear(isa: str, layer: Layer) -> None:
    check_layer(isa, layer)


@isas
@given(layer=convolutions())
@quick
def test_convolution(isa: str, layer: Layer) -> None:
    check_layer(isa, layer)


@isas
def test_deep_patches_in_blocks(isa: str) -> None:
    """A sum deeper than one block of K, more rows than one block, several column blocks; channels in no whole vectors."""
    options = Options(act=RELU6, bias=True, residual=True, extra=True, in_place=True, frozen=False, threads=2, seed=1)
    check_layer(isa, Layer((2, 16, 17, 90), 150, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, options))


@isas
def test_nan_propagates(isa: str) -> None:
    x, w = np.ones((20, 24), np.float32), np.ones((24, 40), np.float32)
    x[7, 3] = np.nan
    (answer,) = run(isa, [Case(LINEAR, (x, w), (Out((20, 40)),), (RELU6,))])
    y = answer.outputs[0]
    assert y is not None
    assert np.isnan(y[7]).all()
    np.testing.assert_array_equal(np.delete(y, 7, axis=0), 6.0)


@isas
def test_same_bits_every_run(isa: str) -> None:
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((1000, 48), np.float32), rng.standard_normal((1000, 40), np.float32)
    case = Case(LINEAR_WEIGHT_GRAD, (x, dy), (Out((48, 40)), Out((40,))), threads=3)
    one, two = run(isa, [case, case])
    for a, b in zip(one.outputs, two.outputs, strict=True):
        assert a is not None
        assert b is not None
        assert a.tobytes() == b.tobytes()


@isas
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(3, 3, 2), (3, 5, 2), (8, 3, 2), (16, 1, 2)])
def test_same_bits_wherever_windows_lie(isa: str, channels: int, kernel: int, stride: int) -> None:
    """Zeros around the image change which tiles' windows lie inside it, and how they are read, but no sum."""
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 9, 67, channels), np.float32), rng.standard_normal((kernel, kernel, channels, 32), np.float32)
    wide = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    y = Out((2, (13 - kernel) // stride + 1, (71 - kernel) // stride + 1, 32))
    cases = [
        Case(CONV, (x, w), (y,), (stride, stride, 2, 2, 2, 2, 1, 1, 1, RELU)),
        Case(CONV, (wide, w), (y,), (stride, stride, 0, 0, 0, 0, 1, 1, 1, RELU)),
    ]
    padded, inside = (answer.outputs[0] for answer in run(isa, cases))
    assert padded is not None
    assert inside is not None
    assert padded.tobytes() == inside.tobytes()
