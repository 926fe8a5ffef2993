"""Every CPU kernel but the products, for each instruction set of this processor, against the ops' float64 references (which
tests/graph holds against PyTorch): all attributes, awkward shapes, in place, one and several threads, special numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.elementwise import Affine, ApplyMask, Binary, Dropout, Expand, Reduce, Unary, UnaryGrad
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.loss import ArgmaxMatch, CrossEntropy, CrossEntropyGrad, NllLoss, NllLossGrad, Softmax, SoftmaxGrad
from edgekit.graph.ops.pool import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dGrad,
    AvgPool2d,
    AvgPool2dGrad,
    MaxPool2d,
    MaxPool2dGrad,
)
from edgekit.graph.ops.shape import Concat, Permute, Slice, Unslice
from edgekit.graph.ops.update import Accumulate, ClipCoefficient, Fill, SgdUpdate, SumSquares
from tests.backends.kernel_library import ISAS, THREADS, KernelLibrary, build, usable

EPS = float(np.finfo(np.float32).eps)
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)


@pytest.fixture(scope="session", params=sorted(ISAS))
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KernelLibrary:
    if not usable(request.param):
        pytest.skip(f"this processor has no {request.param}")
    return build(tmp_path_factory.mktemp("kernels"), request.param)


def floats(values: object) -> Array:
    return np.array(values, np.float32)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def integers(*shape: int, seed: int = 0, low: int = -3, high: int = 9) -> Array:
    """Whole numbers: exact arithmetic, many ties and zeros."""
    return np.random.default_rng((seed, *shape)).integers(low, high, shape).astype(np.float32)


def wide(array: Array | None) -> Array | None:
    return array.astype(np.float64) if array is not None and array.dtype == np.float32 else array


def check(
    kernels: KernelLibrary,
    op: Op,
    *operands: Array | None,
    results: Sequence[int] = (0,),
    rtol: float = 4 * EPS,
    atol: float = 0.0,
) -> list[Array]:
    """The kernel agrees with the reference; one and several threads do too; in place gives the same bits."""
    with np.errstate(all="ignore"):
        reference = op.reference(*(wide(a) for a in operands))
    expected = [reference[i] for i in results if i < len(op.results)] + list(reference[len(op.results) :]) * bool(op.mutates)
    got = kernels.run(op, *operands, results=results)
    for one, two, three in zip(
        got, kernels.run(op, *operands, results=results, threads=THREADS), expected, strict=True
    ):  # fmt: skip
        for made in (one, two):
            assert made.shape == three.shape
            if made.dtype == np.float32:
                np.testing.assert_allclose(made, three.astype(np.float64), rtol=rtol, atol=atol, err_msg=f"{op}")
            else:
                np.testing.assert_array_equal(made, three, err_msg=f"{op}")
    for result, operand in op.inplace:
        array = operands[operand]
        if result == 0 and 0 in results and array is not None and array.shape == expected[0].shape:
            for one, two in zip(got, kernels.run(op, *operands, results=results, alias=operand), strict=True):
                np.testing.assert_array_equal(one, two, err_msg=f"{op} in place")
    return got


shapes = st.lists(st.integers(1, 7), min_size=0, max_size=4).map(tuple)
channels = st.sampled_from([1, 3, 4, 7, 8, 15, 16, 17, 24, 33, 40, 64, 65])
SIZES = [(), (7,), (3, 5), (2, 3, 16), (5, 17), (70001,), (997, 33), (1200, 24)]


# --- elementwise ---------------------------------------------------------------------------------------------------------


def ulps(made: Array, exact: Array) -> Array:
    """Distance in units in the last place of the correctly rounded result; 0 for equal specials.

    Below 2^-119 the unit is that of 2^-119: products with a denormal factor are no better.
    """
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        unit = np.spacing(np.maximum(np.abs(rounded), np.float32(2.0**-119))).astype(np.float64)
    same = (made == rounded) | (np.isnan(made) & np.isnan(rounded))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.abs(made.astype(np.float64) - exact) / unit)


def every_float(step: int = 4099) -> Array:
    """Floats from all over their bit patterns, with the specials."""
    bits = np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32)
    special = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        1e-45,
        -1e-45,
        1e-38,
        3.4e38,
        -3.4e38,
        88.72,
        88.73,
        -87.33,
        -87.34,
        -103.9,
        -104.0,
    ]
    dense = np.linspace(-20.0, 20.0, 200_001)
    return np.concatenate([bits.view(np.float32), np.array(special, np.float32), dense.astype(np.float32)])


EXACT: dict[Function, Callable[[torch.Tensor], torch.Tensor]] = {
    Function.SIGMOID: torch.sigmoid,
    Function.SILU: torch.nn.functional.silu,
    Function.TANH: torch.tanh,
    Function.GELU: lambda x: x * torch.special.erfc(-x * math.sqrt(0.5)) * 0.5,
    Function.EXP: torch.exp,
    Function.LOG: torch.log,
    Function.SQRT: torch.sqrt,
    Function.RSQRT: lambda x: 1.0 / torch.sqrt(x),
    Function.RECIPROCAL: lambda x: 1.0 / x,
    Function.HARDSWISH: torch.nn.functional.hardswish,
    Function.HARDSIGMOID: torch.nn.functional.hardsigmoid,
    Function.RELU: torch.relu,
    Function.RELU6: torch.nn.functional.relu6,
    Function.ABS: torch.abs,
    Function.NEG: torch.neg,
    Function.SQUARE: torch.square,
    Function.IDENTITY: torch.clone,
}
ULPS = {Function.EXP: 1.0, Function.LOG: 1.0, Function.SIGMOID: 2.5, Function.SILU: 3.5, Function.TANH: 2.0, Function.GELU: 7.0,
        Function.RSQRT: 1.5, Function.HARDSWISH: 4.0, Function.HARDSIGMOID: 4.0}  # fmt: skip


@pytest.mark.parametrize("fn", list(Function))
def test_function_over_all_floats(kernels: KernelLibrary, fn: Function) -> None:
    x = every_float()
    if fn in (Function.HARDSWISH, Function.HARDSIGMOID):
        x = x[~((x > -3.1) & (x < -2.9))]  # x + 3 cancels, in PyTorch too
    exact = EXACT[fn](torch.from_numpy(x).double()).numpy()
    (made,) = kernels.run(Unary(fn), x, threads=THREADS)
    worst = ulps(made, exact)
    at = int(np.argmax(worst))
    assert np.array_equal(np.isnan(made), np.isnan(exact)), f"{fn.name} of {x[np.isnan(made) != np.isnan(exact)][:5]}"
    assert worst[at] <= ULPS.get(fn, 0.5), f"{fn.name}({x[at]!r}) = {made[at]!r}, not {exact[at]!r}: {worst[at]:.2f} units"


@pytest.mark.parametrize("fn", list(Function))
@pytest.mark.parametrize("shape", SIZES)
def test_unary(kernels: KernelLibrary, fn: Function, shape: tuple[int, ...]) -> None:
    x = np.abs(normal(*shape)) + 0.1 if fn in (Function.LOG, Function.SQRT, Function.RSQRT) else 3.0 * normal(*shape)
    check(kernels, Unary(fn), x.astype(np.float32), rtol=8 * EPS, atol=1e-7)


@pytest.mark.parametrize("fn", [Function.RELU, Function.RELU6])
@pytest.mark.parametrize("shape", SIZES)
def test_masks(kernels: KernelLibrary, fn: Function, shape: tuple[int, ...]) -> None:
    x = integers(*shape)
    _, mask = check(kernels, Unary(fn), x, results=(0, 1))
    check(kernels, ApplyMask(1.25), normal(*shape, seed=1), mask)


@pytest.mark.parametrize("fn", list(Function))
@pytest.mark.parametrize("shape", SIZES)
def test_unary_grad(kernels: KernelLibrary, fn: Function, shape: tuple[int, ...]) -> None:
    saved = integers(*shape) if fn in (Function.RELU, Function.RELU6, Function.HARDSWISH, Function.ABS) else normal(*shape)
    if fn in (Function.LOG, Function.SQRT):
        saved = np.abs(saved) + np.float32(0.1)
    if fn is Function.HARDSIGMOID:
        saved = np.clip(saved, 0.0, 1.0)
    check(kernels, UnaryGrad(fn), normal(*shape, seed=1), saved, rtol=16 * EPS, atol=1e-6)


@pytest.mark.parametrize("fn", list(Function))
@pytest.mark.parametrize("shape", [(4,), (3, 17), (2, 5, 5, 24), (70, 250)])
def test_affine(kernels: KernelLibrary, fn: Function, shape: tuple[int, ...]) -> None:
    x, scale, shift = integers(*shape), integers(shape[-1], seed=1, low=1, high=3), integers(shape[-1], seed=2, low=1, high=4)
    x = np.abs(x) if fn in (Function.LOG, Function.SQRT, Function.RSQRT) else x
    check(kernels, Affine(fn), x, scale, shift, rtol=8 * EPS, atol=1e-7)
    masked = fn in (Function.RELU, Function.RELU6)
    check(kernels, Affine(fn), x, scale, shift, results=(0, 1, 2) if masked else (0, 2), rtol=8 * EPS, atol=1e-7)


@pytest.mark.parametrize("fn", list(Arithmetic))
@given(shape=shapes, data=st.data())
@FEW
def test_binary_broadcast(kernels: KernelLibrary, fn: Arithmetic, shape: tuple[int, ...], data: st.DataObject) -> None:
    def side(seed: int) -> Array:
        kept = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        drop = data.draw(st.integers(0, len(shape)))
        return normal(*(n if keep else 1 for n, keep in zip(shape, kept, strict=True)), seed=seed).reshape(
            tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))[drop if not any(kept[:drop]) else 0 :]
        )

    check(kernels, Binary(fn), side(1), side(2))


@pytest.mark.parametrize("fn", list(Arithmetic))
@pytest.mark.parametrize("c", [1, 5, 16, 24, 33])
def test_binary_per_channel(kernels: KernelLibrary, fn: Arithmetic, c: int) -> None:
    x = normal(3, 14, 29, c)
    for other in (normal(c), normal(3, 1, 1, c), normal(3, 14, 29, 1), normal(3, 14, 29, c, seed=1), normal().reshape(())):
        check(kernels, Binary(fn), x, other)
        check(kernels, Binary(fn), other, x)


@pytest.mark.parametrize("fn", [Arithmetic.MAXIMUM, Arithmetic.MINIMUM])
def test_nan_wins(kernels: KernelLibrary, fn: Arithmetic) -> None:
    a, b = floats([1, math.nan, 2, math.inf, -math.inf]), floats([math.nan, 1, 3, 1, 1])
    check(kernels, Binary(fn), a, b)


@given(
    rows=st.integers(1, 5), c=channels, p=st.sampled_from([0.0, 0.1, 0.5, 0.9]), step=st.integers(-5, 5), stream=st.integers(0, 9)
)
@FEW
def test_dropout(kernels: KernelLibrary, rows: int, c: int, p: float, step: int, stream: int) -> None:
    state = np.array([-7 if step < 0 else 12345, abs(step)], np.int32)
    check(kernels, Dropout(p, stream), normal(rows, c), state, results=(0, 1))


def test_dropout_of_many(kernels: KernelLibrary) -> None:
    check(kernels, Dropout(0.25, 3), normal(300, 77), np.array([1, 2], np.int32), results=(0, 1))


# --- reductions and moves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", list(Reduction))
@given(shape=shapes.filter(len), data=st.data(), keepdims=st.booleans())
@settings(FEW, max_examples=25)
def test_reduce(kernels: KernelLibrary, fn: Reduction, shape: tuple[int, ...], data: st.DataObject, keepdims: bool) -> None:
    axes = data.draw(st.integers(1, (1 << len(shape)) - 1))
    check(kernels, Reduce(fn, axes, keepdims), normal(*shape), rtol=8 * EPS, atol=1e-5)


@pytest.mark.parametrize("fn", list(Reduction))
@pytest.mark.parametrize("c", [1, 3, 16, 17, 64, 65, 130])
def test_reduce_large(kernels: KernelLibrary, fn: Reduction, c: int) -> None:
    x = normal(2, 57, 61, c) + np.float32(0.5)
    for axes in (0b111, 0b110, 0b1000, 0b1111, 0b1010):
        check(kernels, Reduce(fn, axes), x, rtol=32 * EPS, atol=2e-4 if axes & 1 else 2e-5)


@pytest.mark.parametrize("shape", [(3,), (1000,), (5, 3, 40)])
def test_reduce_max_nan(kernels: KernelLibrary, shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    x.flat[x.size // 2] = math.nan
    for axes in range(1, 1 << len(shape)):
        check(kernels, Reduce(Reduction.MAX, axes), x)


@given(shape=shapes, data=st.data())
@FEW
def test_expand(kernels: KernelLibrary, shape: tuple[int, ...], data: st.DataObject) -> None:
    small = tuple(n if data.draw(st.booleans()) else 1 for n in shape)
    drop = data.draw(st.integers(0, len(shape)))
    small = small[drop:] if all(n == 1 for n in small[:drop]) else small
    check(kernels, Expand.to(shape), normal(*small))


@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=6).map(tuple), data=st.data())
@settings(FEW, max_examples=40)
def test_permute(kernels: KernelLibrary, shape: tuple[int, ...], data: st.DataObject) -> None:
    check(kernels, Permute.of(*data.draw(st.permutations(range(len(shape))))), normal(*shape))


@pytest.mark.parametrize("shape", [(2, 3, 45, 50), (2, 33, 7, 35), (1, 128, 16, 16)])
def test_permute_layouts(kernels: KernelLibrary, shape: tuple[int, ...]) -> None:
    check(kernels, Permute.of(0, 2, 3, 1), normal(*shape))
    check(kernels, Permute.of(0, 3, 1, 2), normal(*shape))
    check(kernels, Permute.of(1, 0, 2, 3), integers(*shape).astype(np.int32))


@given(shape=shapes.filter(len), data=st.data())
@settings(FEW, max_examples=30)
def test_slices(kernels: KernelLibrary, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    step = data.draw(st.integers(1, 3))
    start = data.draw(st.integers(0, shape[axis] - 1))
    length = data.draw(st.integers(1, (shape[axis] - start + step - 1) // step))
    check(kernels, Slice(axis, start, length, step), normal(*shape))
    size = start + (shape[axis] - 1) * step + 1 + data.draw(st.integers(0, 2))
    check(kernels, Unslice(axis, start, size, step), normal(*shape))


@given(shape=shapes.filter(len), data=st.data(), parts=st.integers(2, 8))
@FEW
def test_concat(kernels: KernelLibrary, shape: tuple[int, ...], data: st.DataObject, parts: int) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    arrays = [normal(*shape[:axis], data.draw(st.integers(1, 9)), *shape[axis + 1 :], seed=i) for i in range(parts)]
    check(kernels, Concat(axis), *arrays, *(None,) * (8 - parts))


def test_large_moves(kernels: KernelLibrary) -> None:
    x = normal(50, 60, 24)
    check(kernels, Slice(1, 3, 25, 2), x)
    check(kernels, Unslice(2, 8, 40), x)
    check(kernels, Concat(2), x, normal(50, 60, 5), *(None,) * 6)
    check(kernels, Expand.to((50, 60, 24)), normal(24))


# --- pooling -------------------------------------------------------------------------------------------------------------


@st.composite
def windows(
    draw: st.DrawFn, dilated: bool
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, ...], tuple[int, int], tuple[int, int]]:
    """kernel, stride, padding, dilation, size."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 2) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, kernel[i // 2] // 2)) for i in range(4))
    least = [dilation[i] * (kernel[i] - 1) + 1 - padding[2 * i] - padding[2 * i + 1] for i in (0, 1)]
    return (
        kernel,
        stride,
        padding,
        dilation,
        (max(1, least[0]) + draw(st.integers(0, 6)), max(1, least[1]) + draw(st.integers(0, 6))),
    )


@given(window=windows(dilated=True), c=channels, n=st.integers(1, 2))
@settings(FEW, max_examples=40)
def test_max_pool(kernels: KernelLibrary, window: tuple[tuple[int, ...], ...], c: int, n: int) -> None:
    kernel, stride, padding, dilation, size = window
    op = MaxPool2d(kernel, stride, padding, dilation)  # type: ignore[arg-type]
    y, index = check(kernels, op, integers(n, *size, c), results=(0, 1))
    check(kernels, op, normal(n, *size, c))
    check(kernels, MaxPool2dGrad(size, kernel, stride, padding, dilation), normal(*y.shape), index, rtol=8 * EPS, atol=1e-6)  # type: ignore[arg-type]


def test_max_pool_special(kernels: KernelLibrary) -> None:
    x = normal(2, 6, 6, 19)
    x[0, 2, 3, 4], x[0, 3, 3, 4], x[1] = math.nan, math.nan, -math.inf
    check(kernels, MaxPool2d(), x, results=(0, 1))
    outside = kernels.run(MaxPool2dGrad((6, 6)), normal(2, 3, 3, 19), np.full((2, 3, 3, 19), 255, np.uint8))[0]
    assert not outside.any()  # an index that no window has
    kernels.run(MaxPool2d((2, 2), (2, 2), (4, 4, 4, 4)), x, results=(0, 1))  # windows in the padding alone: no fault


@given(window=windows(dilated=False), c=channels, n=st.integers(1, 2), count=st.booleans())
@settings(FEW, max_examples=40)
def test_avg_pool(kernels: KernelLibrary, window: tuple[tuple[int, ...], ...], c: int, n: int, count: bool) -> None:
    kernel, stride, padding, _, size = window
    (y,) = check(kernels, AvgPool2d(kernel, stride, padding, count), normal(n, *size, c), rtol=8 * EPS, atol=1e-6)  # type: ignore[arg-type]
    check(kernels, AvgPool2dGrad(size, kernel, stride, padding, count), normal(*y.shape), rtol=8 * EPS, atol=1e-6)  # type: ignore[arg-type]


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), output=st.tuples(st.integers(1, 9), st.integers(1, 9)), c=channels)
@settings(FEW, max_examples=30)
def test_adaptive_avg_pool(kernels: KernelLibrary, size: tuple[int, int], output: tuple[int, int], c: int) -> None:
    check(kernels, AdaptiveAvgPool2d(output), normal(2, *size, c), rtol=8 * EPS, atol=1e-6)
    check(kernels, AdaptiveAvgPool2dGrad(size), normal(2, *output, c), rtol=8 * EPS, atol=1e-6)


def test_large_pools(kernels: KernelLibrary) -> None:
    x = normal(2, 57, 57, 24)
    y, index = check(kernels, MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), x, results=(0, 1))
    check(kernels, MaxPool2dGrad((57, 57), (3, 3), (2, 2), (1, 1, 1, 1)), normal(*y.shape), index, rtol=8 * EPS, atol=1e-6)
    check(kernels, AdaptiveAvgPool2d((1, 1)), x, rtol=8 * EPS, atol=1e-6)
    check(kernels, AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1)), x, rtol=8 * EPS, atol=1e-6)
    check(kernels, AvgPool2dGrad((57, 57), (3, 3), (1, 1), (1, 1, 1, 1)), normal(*x.shape), rtol=8 * EPS, atol=1e-6)


# --- losses --------------------------------------------------------------------------------------------------------------


def targets_for(rows: int, classes: int, ignored: bool, seed: int) -> Array:
    targets = np.random.default_rng(seed).integers(0, classes, rows).astype(np.int32)
    if ignored:
        targets[:: 2 if seed % 2 else 1] = -1
    return targets


@given(rows=st.integers(1, 6), classes=channels, mean=st.booleans(), ignored=st.booleans(), smoothing=st.sampled_from([0.0, 0.1]),
       scale=st.sampled_from([1.0, 30.0, 1000.0]), seed=st.integers(0, 99))  # fmt: skip
@settings(FEW, max_examples=40)
def test_cross_entropy(
    kernels: KernelLibrary, rows: int, classes: int, mean: bool, ignored: bool, smoothing: float, scale: float, seed: int
) -> None:
    reduction = Reduction.MEAN if mean else Reduction.SUM
    x, targets = normal(rows, classes, seed=seed) * np.float32(scale), targets_for(rows, classes, ignored, seed)
    check(kernels, CrossEntropy(reduction, -1, smoothing), x, targets, atol=1e-6 * scale)
    check(kernels, CrossEntropyGrad(reduction, -1, smoothing), x, targets, floats(0.7), rtol=8 * EPS, atol=1e-6)
    loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(x).double(),
        torch.from_numpy(targets).long(),
        ignore_index=-1,
        label_smoothing=smoothing,
        reduction=reduction.name.lower(),
    )
    made = kernels.run(CrossEntropy(reduction, -1, smoothing), x, targets)[0]
    np.testing.assert_allclose(made, loss.numpy(), rtol=4 * EPS, atol=1e-6 * scale)


def test_cross_entropy_special(kernels: KernelLibrary) -> None:
    x = floats([[0.0, -math.inf, 2.0], [1.0, 1.0, 1.0]])
    check(kernels, CrossEntropyGrad(Reduction.SUM), x, np.array([2, 0], np.int32), floats(1.0), atol=1e-7)
    for target, like in ((2, math.isfinite), (1, math.isinf), (3, math.isnan), (-5, math.isnan)):
        assert like(kernels.run(CrossEntropy(), x, np.array([target, 0], np.int32))[0])
    assert np.isnan(kernels.run(CrossEntropy(), x * np.float32(math.nan), np.array([0, 0], np.int32))[0])
    grad = kernels.run(CrossEntropyGrad(), x, np.array([99, 0], np.int32), floats(1.0))[0]
    assert np.isnan(grad[0]).all()
    assert np.isfinite(grad[1]).all()
    assert np.isnan(kernels.run(CrossEntropy(), x, np.full(2, -100, np.int32))[0])  # a mean over nothing


def test_many_rows(kernels: KernelLibrary) -> None:
    x, targets = normal(40, 50, 21), np.random.default_rng(0).integers(-1, 21, (40, 50)).astype(np.int32)
    check(kernels, CrossEntropy(Reduction.MEAN, -1), x, targets)
    check(kernels, CrossEntropyGrad(Reduction.MEAN, -1), x, targets, floats(1.0), rtol=8 * EPS, atol=1e-9)
    check(kernels, Softmax(), x, rtol=8 * EPS)
    check(kernels, NllLoss(Reduction.MEAN, -1), x, targets)
    check(kernels, ArgmaxMatch(-1), integers(40, 50, 21), targets)


@given(rows=st.integers(1, 5), classes=channels, log=st.booleans(), scale=st.sampled_from([1.0, 50.0]))
@settings(FEW, max_examples=30)
def test_softmax(kernels: KernelLibrary, rows: int, classes: int, log: bool, scale: float) -> None:
    (y,) = check(
        kernels,
        Softmax(log),
        normal(rows, classes) * np.float32(scale),
        rtol=(16 + 4 * scale) * EPS,
        atol=1e-6 * scale if log else 1e-38,
    )
    check(kernels, SoftmaxGrad(log), normal(rows, classes, seed=1), y, rtol=16 * EPS, atol=4e-6)


@given(rows=st.integers(1, 6), classes=channels, mean=st.booleans(), ignored=st.booleans(), seed=st.integers(0, 99))
@settings(FEW, max_examples=25)
def test_nll_and_hits(kernels: KernelLibrary, rows: int, classes: int, mean: bool, ignored: bool, seed: int) -> None:
    reduction = Reduction.MEAN if mean else Reduction.SUM
    targets = targets_for(rows, classes, ignored, seed)
    check(kernels, NllLoss(reduction, -1), normal(rows, classes), targets, atol=1e-7)
    if (targets >= 0).any():
        check(kernels, NllLossGrad(reduction, -1, classes), targets, floats(-1.5))
    else:  # as PyTorch, where the mean's weight is NaN
        assert not kernels.run(NllLossGrad(reduction, -1, classes), targets, floats(-1.5))[0].any()
    check(kernels, ArgmaxMatch(-1), integers(rows, classes, seed=seed), targets)


def test_hits_special(kernels: KernelLibrary) -> None:
    x = floats([[1, 2, 2], [math.nan, 9, 1], [1, math.nan, math.nan], [-math.inf, -math.inf, -math.inf]])
    check(kernels, ArgmaxMatch(), x, np.array([1, 0, 1, 0], np.int32))
    check(kernels, ArgmaxMatch(), x, np.array([2, 1, 2, 99], np.int32))


# --- updates -------------------------------------------------------------------------------------------------------------


@given(data=st.data(), shape=st.lists(st.integers(1, 5), max_size=3).map(tuple), c=channels, momentum=st.sampled_from([0.0, 0.9]),
       decay=st.sampled_from([0.0, 0.01]), nesterov=st.booleans(), clip=st.booleans())  # fmt: skip
@settings(FEW, max_examples=60)
def test_sgd_update(
    kernels: KernelLibrary,
    data: st.DataObject,
    shape: tuple[int, ...],
    c: int,
    momentum: float,
    decay: float,
    nesterov: bool,
    clip: bool,
) -> None:
    shape = (*shape, c)
    block = tuple(data.draw(st.integers(1, n)) if data.draw(st.booleans()) else n for n in shape)
    vector = st.sampled_from([None, block[-1:], block])
    factor, offset = data.draw(vector), data.draw(vector)
    check(
        kernels,
        SgdUpdate(0.1, momentum, decay, nesterov and momentum != 0.0),
        normal(*shape),
        normal(*block, seed=1),
        normal(*block, seed=2) if momentum else None,
        None if factor is None else normal(*factor, seed=3),
        None if offset is None else normal(*offset, seed=4),
        floats(0.3) if clip else None,
        None,
        None,
        rtol=8 * EPS,
        atol=1e-6,
    )


def test_large_updates(kernels: KernelLibrary) -> None:
    p, g = normal(3, 3, 64, 96), normal(3, 3, 48, 96, seed=1)
    check(
        kernels, SgdUpdate(0.1, 0.9, 0.01), p, g, g * 2, normal(96), normal(96, seed=2), None, None, None, rtol=8 * EPS, atol=1e-6
    )
    check(kernels, SgdUpdate(0.1), normal(), normal(seed=1), *(None,) * 6, rtol=8 * EPS)
    check(kernels, Accumulate(), p, p * 3)
    check(kernels, Fill(1.5), p)
    check(kernels, SumSquares(), g, normal(96), floats(3.0))
    check(kernels, SumSquares(), g, g, None)


@given(shape=shapes, vector=st.sampled_from(["none", "last", "all"]), previous=st.booleans())
@FEW
def test_sum_squares(kernels: KernelLibrary, shape: tuple[int, ...], vector: str, previous: bool) -> None:
    g = normal(*shape)
    factor = {"none": None, "last": normal(*g.shape[-1:], seed=1), "all": normal(*shape, seed=1)}[vector]
    check(kernels, SumSquares(), g, factor, floats(2.5) if previous else None, rtol=8 * EPS)
    check(kernels, Accumulate(), g, normal(*shape, seed=2), rtol=4 * EPS, atol=1e-7)
    check(kernels, Fill(-0.5), g)


@pytest.mark.parametrize("total", [0.0, 0.25, 1.0, 9.0, 1e30, math.inf, math.nan])
def test_clip_coefficient(kernels: KernelLibrary, total: float) -> None:
    check(kernels, ClipCoefficient(1.0), floats(total))
