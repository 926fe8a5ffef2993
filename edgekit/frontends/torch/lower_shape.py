"""Shapes: reshape, permute, concatenate, slice, pad, broadcast; and reductions."""

from __future__ import annotations

import math

from torch import fx

from edgekit.frontends.torch.lowering import Lowering, Result, lowers
from edgekit.graph.ops.elementwise import Expand, Reduce
from edgekit.graph.ops.function import Reduction
from edgekit.graph.ops.shape import Concat, Slice, Unslice
from edgekit.graph.value import Value


@lowers(
    "flatten.using_ints",
    "reshape",
    "view",
    "_unsafe_view",
    "_reshape_copy",
    "unsqueeze",
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "unflatten.int",
)
def reshape(to: Lowering, x: fx.Node, *_: object) -> Result:
    return to.reshape(to.value(x), to.result_shape())


@lowers("permute")
def permute(to: Lowering, x: fx.Node, dims: list[int]) -> Result:
    value = to.value(x)
    return to.permute(value, tuple(d % len(value.shape) for d in dims))


@lowers("transpose.int")
def transpose(to: Lowering, x: fx.Node, first: int, second: int) -> Result:
    value = to.value(x)
    perm = list(range(len(value.shape)))
    perm[first], perm[second] = perm[second], perm[first]
    return to.permute(value, tuple(perm))


@lowers("t", "numpy_T")
def t(to: Lowering, x: fx.Node) -> Result:
    value = to.value(x)
    return to.permute(value, tuple(reversed(range(len(value.shape)))))


@lowers("cat", "concat")
def cat(to: Lowering, parts: list[fx.Node], dim: int = 0) -> Result:
    values = [to.value(p) for p in parts]
    return _join(to, [v for v in values if v.shape != (0,)], dim % len(values[0].shape))


@lowers("stack")
def stack(to: Lowering, parts: list[fx.Node], dim: int = 0) -> Result:
    values = [to.value(p) for p in parts]
    axis = dim % (len(values[0].shape) + 1)
    return _join(to, [to.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in values], axis)


def _join(to: Lowering, parts: list[Value], axis: int) -> Value:
    """Concatenate, eight at a time."""
    while len(parts) > 1:
        parts = [to(Concat(axis), *parts[i : i + 8]) if len(parts[i : i + 8]) > 1 else parts[i] for i in range(0, len(parts), 8)]
    return parts[0]


@lowers("slice.Tensor")
def slice_(to: Lowering, x: fx.Node, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Result:
    value = to.value(x)
    axis = dim % len(value.shape)
    first, _, _ = slice(start, end, step).indices(value.shape[axis])
    return _part(to, value, axis, first, to.result_shape()[axis], step)


@lowers("select.int")
def select(to: Lowering, x: fx.Node, dim: int, index: int) -> Result:
    value = to.value(x)
    axis = dim % len(value.shape)
    return to.reshape(_part(to, value, axis, index % value.shape[axis], 1, 1), to.result_shape())


@lowers("narrow")
def narrow(to: Lowering, x: fx.Node, dim: int, start: int, length: int) -> Result:
    value = to.value(x)
    axis = dim % len(value.shape)
    return _part(to, value, axis, start % value.shape[axis], length, 1)


@lowers("split.Tensor", "split.sizes", "split_with_sizes", "chunk", "unbind.int")
def split(to: Lowering, x: fx.Node, *arguments: object) -> Result:
    value = to.value(x)
    assert to.node is not None
    shapes = [tuple(part.shape) for part in to.node.meta["val"]]
    named = str(to.node.target)
    dim = arguments[0] if "unbind" in named else arguments[1] if len(arguments) > 1 else 0
    assert isinstance(dim, int)
    axis = dim % len(value.shape)
    parts, start = [], 0
    for shape in shapes:
        length = 1 if "unbind" in named else shape[axis]
        parts.append(to.reshape(_part(to, value, axis, start, length, 1), shape))
        start += length
    return tuple(parts)


def _part(to: Lowering, x: Value, axis: int, start: int, length: int, step: int) -> Value:
    return x if length == x.shape[axis] else to(Slice(axis, start, length, step), x)


@lowers("expand", "expand_as", "broadcast_to")
def expand(to: Lowering, x: fx.Node, *_: object) -> Result:
    value, shape = to.value(x), to.result_shape()
    return value if value.shape == shape else to(Expand.to(shape), value)


@lowers("constant_pad_nd", "pad")
def constant_pad(to: Lowering, x: fx.Node, pads: list[int], *options: object) -> Result:
    mode = next((o for o in options if isinstance(o, str)), "constant")
    fill = next((o for o in options if isinstance(o, (int, float))), 0)
    if mode != "constant" or fill != 0:
        raise to.unsupported(f"pads in mode {mode} with {fill}", "pad with zeros: nn.ZeroPad2d")
    y = to.value(x)
    for i in range(len(pads) // 2):
        before, after = pads[2 * i], pads[2 * i + 1]
        axis = len(y.shape) - 1 - i
        y = _part(to, y, axis, max(-before, 0), y.shape[axis] - max(-before, 0) - max(-after, 0), 1)
        before, after = max(before, 0), max(after, 0)
        if before or after:
            y = to(Unslice(axis, before, y.shape[axis] + before + after, 1), y)
    return y


@lowers("mean.dim", "sum.dim_IntList", "amax")
def reduce(to: Lowering, x: fx.Node, dims: list[int] | None = None, keepdim: bool = False, *_: object) -> Result:
    return reduced(to, to.value(x), _reduction(to), dims or None, keepdim)


@lowers("mean", "sum")
def reduce_all(to: Lowering, x: fx.Node, *_: object) -> Result:
    return reduced(to, to.value(x), _reduction(to))


def _reduction(to: Lowering) -> Reduction:
    assert to.node is not None
    return {"mean": Reduction.MEAN, "sum": Reduction.SUM, "amax": Reduction.MAX}[str(to.node.target).split(".")[1]]


def reduced(to: Lowering, x: Value, fn: Reduction, dims: list[int] | None = None, keepdim: bool = False) -> Value:
    """Reduce these axes, or all."""
    rank = len(x.shape)
    axes = range(rank) if dims is None else [d % rank for d in dims]
    if math.prod(x.shape[a] for a in axes) == 1:
        return to.reshape(x, tuple(n for i, n in enumerate(x.shape) if keepdim or i not in axes))
    return to(Reduce(fn, sum(1 << a for a in axes), keepdim), x)
