"""Pooling."""

from __future__ import annotations

from torch import fx

from edgekit.frontends.torch.lower_products import pair
from edgekit.frontends.torch.lower_shape import reduced
from edgekit.frontends.torch.lowering import Lowering, Result, lowers
from edgekit.graph.op import Op
from edgekit.graph.ops.conv import Pair, Quad
from edgekit.graph.ops.function import Reduction
from edgekit.graph.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from edgekit.graph.value import Value

Ints = list[int]


@lowers("max_pool2d")
def max_pool2d(to: Lowering, x: fx.Node, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Result:
    value = to.value(x)
    window, steps = pair(kernel), pair(stride or kernel)
    pads = _padding(value.shape[-2:], window, steps, pair(padding), pair(dilation), ceil)
    return _nhwc(to, MaxPool2d(window, steps, pads, pair(dilation)), value)


@lowers("max_pool2d_with_indices")
def max_pool2d_with_indices(
    to: Lowering, x: fx.Node, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False
) -> Result:
    y = max_pool2d(to, x, kernel, stride, padding, dilation, ceil)
    assert isinstance(y, Value)
    return (y, None)


@lowers("max_pool1d")
def max_pool1d(to: Lowering, x: fx.Node, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool = False) -> Result:
    row, window, steps = _row(to, x), (1, kernel[0]), (1, (stride or kernel)[0])
    spread = (1, dilation[0])
    pads = _padding(row.shape[-2:], window, steps, (0, padding[0]), spread, ceil)
    return to.reshape(_nhwc(to, MaxPool2d(window, steps, pads, spread), row), to.result_shape())


@lowers("avg_pool2d")
def avg_pool2d(
    to: Lowering,
    x: fx.Node,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool,
    count_padding: bool,
    divisor: int | None = None,
) -> Result:
    value = to.value(x)
    return _average(to, value, pair(kernel), pair(stride or kernel), pair(padding), ceil, count_padding, divisor)


@lowers("avg_pool1d")
def avg_pool1d(to: Lowering, x: fx.Node, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, count_padding: bool) -> Result:
    window, steps = (1, kernel[0]), (1, (stride or kernel)[0])
    y = _average(to, _row(to, x), window, steps, (0, padding[0]), ceil, count_padding, None)
    return to.reshape(y, to.result_shape())


def _average(
    to: Lowering, x: Value, kernel: Pair, stride: Pair, padding: Pair, ceil: bool, count_padding: bool, divisor: int | None
) -> Value:
    if divisor is not None:
        raise to.unsupported("has a divisor_override")
    plain = _padding(x.shape[-2:], kernel, stride, padding, (1, 1), False)
    pads = _padding(x.shape[-2:], kernel, stride, padding, (1, 1), ceil)
    if pads != plain and count_padding and padding != (0, 0):
        raise to.unsupported("counts its padding in ceil mode", "set count_include_pad=False")
    return _nhwc(to, AvgPool2d(kernel, stride, pads, count_padding and pads == plain), x)


@lowers("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def adaptive_avg_pool2d(to: Lowering, x: fx.Node, output: list[int | None]) -> Result:
    value = to.value(x)
    wanted = (output[0] or value.shape[-2], output[-1] or value.shape[-1])
    if wanted == value.shape[-2:]:
        return value
    if wanted == (1, 1):
        return reduced(to, value, Reduction.MEAN, [-2, -1], keepdim=True)
    return _nhwc(to, AdaptiveAvgPool2d(wanted), value)


@lowers("adaptive_avg_pool1d")
def adaptive_avg_pool1d(to: Lowering, x: fx.Node, output: Ints) -> Result:
    value = to.value(x)
    if output[0] == 1:
        return reduced(to, value, Reduction.MEAN, [-1], keepdim=True)
    return to.reshape(_nhwc(to, AdaptiveAvgPool2d((1, output[0])), _row(to, x)), to.result_shape())


@lowers("adaptive_max_pool2d")
def adaptive_max_pool2d(to: Lowering, x: fx.Node, output: Ints) -> Result:
    if pair(output) != (1, 1):
        raise to.unsupported(f"has an output of {tuple(output)}; only (1, 1) works", "use nn.MaxPool2d")
    return (reduced(to, to.value(x), Reduction.MAX, [-2, -1], keepdim=True), None)


def _row(to: Lowering, x: fx.Node) -> Value:
    """[N, C, L] as an image of height 1."""
    value = to.value(x)
    return to.reshape(value, (*value.shape[:-1], 1, value.shape[-1]))


def _nhwc(to: Lowering, op: Op, x: Value) -> Value:
    if len(x.shape) != 4:
        raise to.unsupported(f"has an input of shape {x.shape}, without a batch axis")
    return to.channels_first(to(op, to.channels_last(x)))


def _padding(size: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool) -> Quad:
    """Both sides' padding; in ceil mode more at the bottom and right, so that the last, cut window counts.

    A window that would start past the input and its left padding is left out, as in PyTorch (``pooling_output_shape``).
    """
    extra = [0, 0]
    for i in range(2) if ceil else ():
        span = size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
        windows = -(-span // stride[i]) + 1
        if (windows - 1) * stride[i] >= size[i] + padding[i]:
            windows -= 1
        extra[i] = max((windows - 1) * stride[i] - span, 0)
    return (padding[0], padding[0] + extra[0], padding[1], padding[1] + extra[1])
