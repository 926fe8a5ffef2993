"""Softmax and losses."""

from __future__ import annotations

from torch import fx

from edgekit.frontends.torch.lower_shape import reduced
from edgekit.frontends.torch.lowering import Lowering, Result, lowers
from edgekit.graph.ops.elementwise import Binary, Unary
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.loss import CrossEntropy, NllLoss, Softmax
from edgekit.graph.value import DType, Value

NONE, MEAN, SUM = 0, 1, 2  #: at::Reduction


@lowers("softmax.int", "_softmax", "log_softmax.int", "_log_softmax")
def softmax(to: Lowering, x: fx.Node, dim: int, *_: object) -> Result:
    assert to.node is not None
    value = to.value(x)
    last, axis = len(value.shape) - 1, dim % len(value.shape)
    swap = [*range(last + 1)]
    swap[axis], swap[last] = last, axis
    y = to(Softmax("log" in str(to.node.target)), to.permute(value, tuple(swap)))
    return to.permute(y, tuple(swap))


@lowers("cross_entropy_loss")
def cross_entropy(
    to: Lowering,
    logits: fx.Node,
    targets: fx.Node,
    weight: fx.Node | None = None,
    reduction: int = MEAN,
    ignore_index: int = -100,
    smoothing: float = 0.0,
) -> Result:
    if weight is not None:
        raise to.unsupported("weighs the classes")
    scores, wanted = _classes_last(to, logits), to.value(targets)
    if wanted.dtype is DType.I32:
        return to(CrossEntropy(_reduction(to, reduction), ignore_index, smoothing), scores, wanted)
    wanted = to.channels_last(wanted) if len(wanted.shape) > 1 else wanted
    if smoothing:
        share = to.scalar(smoothing / scores.shape[-1])
        wanted = to(Binary(Arithmetic.ADD), to(Binary(Arithmetic.MUL), wanted, to.scalar(1 - smoothing)), share)
    product = to(Binary(Arithmetic.MUL), wanted, to(Softmax(log=True), scores))
    rows = product.type.size // product.shape[-1] if reduction == MEAN else 1
    total = reduced(to, product, _reduction(to, SUM if reduction == MEAN else reduction))
    return to(Binary(Arithmetic.MUL), total, to.scalar(-1 / rows))


@lowers("nll_loss", "nll_loss_nd", "nll_loss2d")
def nll_loss(
    to: Lowering,
    scores: fx.Node,
    targets: fx.Node,
    weight: fx.Node | None = None,
    reduction: int = MEAN,
    ignore_index: int = -100,
) -> Result:
    if weight is not None:
        raise to.unsupported("weighs the classes")
    return to(NllLoss(_reduction(to, reduction), ignore_index), _classes_last(to, scores), to.value(targets))


@lowers("nll_loss_forward", "nll_loss2d_forward")
def nll_loss_forward(
    to: Lowering, scores: fx.Node, targets: fx.Node, weight: fx.Node | None, reduction: int, ignore_index: int
) -> Result:
    y = nll_loss(to, scores, targets, weight, reduction, ignore_index)
    assert isinstance(y, Value)
    return (y, None)


@lowers("mse_loss")
def mse_loss(to: Lowering, x: fx.Node, y: fx.Node, reduction: int = MEAN) -> Result:
    return _difference(to, Function.SQUARE, x, y, reduction)


@lowers("l1_loss")
def l1_loss(to: Lowering, x: fx.Node, y: fx.Node, reduction: int = MEAN) -> Result:
    return _difference(to, Function.ABS, x, y, reduction)


@lowers("binary_cross_entropy_with_logits")
def bce_with_logits(
    to: Lowering,
    x: fx.Node,
    y: fx.Node,
    weight: fx.Node | None = None,
    pos_weight: fx.Node | None = None,
    reduction: int = MEAN,
) -> Result:
    """relu(x) - x y + log(1 + exp(-|x|))."""
    if weight is not None or pos_weight is not None:
        raise to.unsupported("weighs the elements")
    scores, wanted = to.value(x), to.value(y)
    decay = to(Unary(Function.EXP), to(Unary(Function.NEG), to(Unary(Function.ABS), scores)))
    tail = to(Unary(Function.LOG), to(Binary(Arithmetic.ADD), decay, to.scalar(1.0)))
    hinge = to(Binary(Arithmetic.SUB), to(Unary(Function.RELU), scores), to(Binary(Arithmetic.MUL), scores, wanted))
    terms = to(Binary(Arithmetic.ADD), hinge, tail)
    return terms if reduction == NONE else reduced(to, terms, _reduction(to, reduction))


def _difference(to: Lowering, fn: Function, x: fx.Node, y: fx.Node, reduction: int) -> Value:
    terms = to(Unary(fn), to(Binary(Arithmetic.SUB), to.value(x), to.value(y)))
    return terms if reduction == NONE else reduced(to, terms, _reduction(to, reduction))


def _classes_last(to: Lowering, x: fx.Node) -> Value:
    value = to.value(x)
    return to.channels_last(value) if len(value.shape) > 1 else value


def _reduction(to: Lowering, number: int) -> Reduction:
    if number == NONE:
        raise to.unsupported("gives a loss for each sample (reduction='none')", "use reduction='mean' or 'sum'")
    return Reduction.MEAN if number == MEAN else Reduction.SUM
