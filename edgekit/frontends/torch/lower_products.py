"""Convolutions, linear layers, matrix products and BatchNorm."""

from __future__ import annotations

from torch import fx

from edgekit.frontends.torch.lowering import Lowering, Result, lowers
from edgekit.graph.ops.conv import Conv2d, Pair, Quad
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.norm import BatchNorm
from edgekit.graph.value import Value

Ints = list[int]


@lowers("conv2d")
def conv2d(
    to: Lowering, x: fx.Node, weight: fx.Node, bias: fx.Node | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Result:
    top, left = pair(padding)
    return _convolve(to, to.value(x), weight, bias, pair(stride), (top, top, left, left), pair(dilation), groups)


@lowers("conv2d.padding")
def conv2d_padding(
    to: Lowering, x: fx.Node, weight: fx.Node, bias: fx.Node | None, stride: Ints, padding: str, dilation: Ints, groups: int
) -> Result:
    _, _, rows, columns = to.shape(weight)
    quad = named_padding(padding, (rows, columns), pair(dilation))
    return _convolve(to, to.value(x), weight, bias, pair(stride), quad, pair(dilation), groups)


@lowers("conv1d")
def conv1d(
    to: Lowering, x: fx.Node, weight: fx.Node, bias: fx.Node | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Result:
    quad = (0, 0, padding[0], padding[-1])
    return _convolve_row(to, to.value(x), weight, bias, (1, stride[0]), quad, (1, dilation[0]), groups)


@lowers("conv1d.padding")
def conv1d_padding(
    to: Lowering, x: fx.Node, weight: fx.Node, bias: fx.Node | None, stride: Ints, padding: str, dilation: Ints, groups: int
) -> Result:
    quad = named_padding(padding, (1, to.shape(weight)[2]), (1, dilation[0]))
    return _convolve_row(to, to.value(x), weight, bias, (1, stride[0]), quad, (1, dilation[0]), groups)


@lowers("convolution")
def convolution(
    to: Lowering,
    x: fx.Node,
    weight: fx.Node,
    bias: fx.Node | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    _output_padding: Ints,
    groups: int,
) -> Result:
    rank = len(to.shape(weight))
    if transposed:
        raise to.unsupported("is a transposed convolution", "upsample and convolve instead")
    if rank == 3:
        return conv1d(to, x, weight, bias, stride, padding, dilation, groups)
    if rank == 4:
        return conv2d(to, x, weight, bias, stride, padding, dilation, groups)
    raise to.unsupported(f"convolves {rank - 2} dimensions")


def pair(values: Ints) -> Pair:
    """PyTorch's one or two numbers."""
    return (values[0], values[-1])


def named_padding(padding: str, kernel: Pair, dilation: Pair) -> Quad:
    """``same`` or ``valid``; what is odd goes to the bottom and right, as PyTorch does."""
    if padding == "valid":
        return (0, 0, 0, 0)
    rows, columns = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    return (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)


def _convolve(
    to: Lowering, x: Value, weight: fx.Node, bias: fx.Node | None, stride: Pair, padding: Quad, dilation: Pair, groups: int
) -> Value:
    """NCHW in and out."""
    if len(x.shape) != 4:
        raise to.unsupported(f"has an input of shape {x.shape}, without a batch axis")
    w = to.tensor(weight, (2, 3, 1, 0), in_axis=3 if _depthwise(to.shape(weight), groups) else 2)
    op = Conv2d(stride, padding, dilation, groups)
    return to.channels_first(to(op, to.channels_last(x), w, to.optional(bias)))


def _convolve_row(
    to: Lowering, x: Value, weight: fx.Node, bias: fx.Node | None, stride: Pair, padding: Quad, dilation: Pair, groups: int
) -> Value:
    """NCL in and out, as images of height 1."""
    if len(x.shape) != 3:
        raise to.unsupported(f"has an input of shape {x.shape}, without a batch axis")
    outputs, per_group, taps = to.shape(weight)
    in_axis = 3 if _depthwise(to.shape(weight), groups) else 2
    w = to.tensor(weight, (2, 1, 0), (1, taps, per_group, outputs), in_axis)
    n, c, length = x.shape
    rows = to.channels_last(to.reshape(x, (n, c, 1, length)))
    y = to.channels_first(to(Conv2d(stride, padding, dilation, groups), rows, w, to.optional(bias)))
    return to.reshape(y, (n, y.shape[1], y.shape[3]))


def _depthwise(weight: tuple[int, ...], groups: int) -> bool:
    """Its one input channel a group cannot be sliced; what a fraction selects are the groups."""
    return groups > 1 and weight[1] == 1


@lowers("linear")
def linear(to: Lowering, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> Result:
    return to(Linear(), to.value(x), to.tensor(weight, (1, 0), in_axis=0), to.optional(bias))


@lowers("addmm")
def addmm(to: Lowering, bias: fx.Node, x: fx.Node, weight: fx.Node, beta: float = 1, alpha: float = 1) -> Result:
    if beta != 1 or alpha != 1 or len(to.shape(bias)) != 1:
        raise to.unsupported("scales its terms")
    return to(Linear(), to.value(x), to.value(weight), to.value(bias))


@lowers("mm", "matmul")
def matmul(to: Lowering, a: fx.Node, b: fx.Node) -> Result:
    if len(to.shape(b)) != 2:
        raise to.unsupported(f"multiplies arrays of shapes {to.shape(a)} and {to.shape(b)}; only a matrix may stand on the right")
    return to(Linear(), to.value(a), to.value(b))


@lowers("batch_norm")
def batch_norm(
    to: Lowering,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node | None,
    var: fx.Node | None,
    training: bool,
    _momentum: float,
    eps: float,
    *_: bool,
) -> Result:
    if training or mean is None or var is None:
        raise to.unsupported(
            "normalises with the batch's own statistics",
            "use BatchNorm with running statistics, in evaluation mode: model.eval()",
        )
    return _normalise(to, x, weight, bias, mean, var, eps)


@lowers("_native_batch_norm_legit_no_training")
def native_batch_norm(
    to: Lowering,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node,
    var: fx.Node,
    _momentum: float,
    eps: float,
) -> Result:
    return (_normalise(to, x, weight, bias, mean, var, eps), None, None)


def _normalise(
    to: Lowering, x: fx.Node, weight: fx.Node | None, bias: fx.Node | None, mean: fx.Node, var: fx.Node, eps: float
) -> Value:
    vectors = (to.value(mean), to.value(var), to.optional(weight), to.optional(bias))
    return to.channels_first(to(BatchNorm(eps), to.channels_last(to.value(x)), *vectors))
