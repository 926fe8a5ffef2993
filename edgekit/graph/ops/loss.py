"""Losses, softmax and metrics. Class scores lie on the last axis; targets are i32 class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.function import Reduction
from edgekit.graph.ops.linear import check
from edgekit.graph.value import DType, Type, Value

if TYPE_CHECKING:
    from edgekit.graph.builder import Builder
    from edgekit.graph.graph import Node


def check_targets(scores: Type | None, targets: Type | None) -> None:
    assert scores is not None and targets is not None
    fits = scores.dtype is DType.F32 and targets.dtype is DType.I32 and scores.shape[:-1] == targets.shape
    check(len(scores.shape) >= 1 and fits, f"scores {scores} and targets {targets} do not fit")


def log_softmax(x: Array) -> Array:
    """log(softmax(x)) over the last axis."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def onehot(targets: Array, classes: int, ignore_index: int, dtype: np.dtype[np.floating]) -> Array:
    """[..., classes]: 1 at each row's target, nothing in the rows to ignore."""
    counted = np.where(targets == ignore_index, -1, targets)
    return np.asarray(np.arange(classes) == counted[..., None], dtype)


def row_weight(reduction: Reduction, counted: Array) -> float:
    """What every counted row's term is multiplied with. A mean over no rows is not a number, as in PyTorch."""
    if reduction is Reduction.SUM:
        return 1.0
    rows = int(np.count_nonzero(counted))
    return 1.0 / rows if rows else float("nan")


@dataclass(frozen=True)
class CrossEntropy(Op):
    """loss[] = the cross-entropy of softmax(logits[..., C]) and targets[...]; ``reduction`` is SUM or MEAN.

    Rows whose target is ``ignore_index`` count neither in the sum nor in the mean's divisor. ``smoothing`` s mixes the
    target with the uniform distribution: (1 - s) * onehot + s / C.
    """

    reduction: Reduction = Reduction.MEAN
    ignore_index: int = -100
    smoothing: float = 0.0

    name: ClassVar[str] = "cross_entropy"
    code: ClassVar[int] = 40
    operands: ClassVar[tuple[str, ...]] = ("logits", "targets")
    results: ClassVar[tuple[str, ...]] = ("loss",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        check_targets(*operands)
        return (Type(()),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        check(not wanted[1], "cross_entropy: class numbers have no gradient")
        grad = CrossEntropyGrad(self.reduction, self.ignore_index, self.smoothing)
        return [build(grad, *node.inputs, dy) if wanted[0] else None, None]

    def flops(self, node: Node) -> int:
        return 4 * next(node.reads).type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        logits, targets = operands
        assert logits is not None and targets is not None
        classes = logits.shape[-1]
        counted = targets != self.ignore_index
        logs = log_softmax(logits)
        wanted = (1.0 - self.smoothing) * onehot(targets, classes, self.ignore_index, logits.dtype) + self.smoothing / classes
        total = -np.sum(np.where(counted[..., None], wanted * logs, 0.0))
        return (np.asarray(total * row_weight(self.reduction, counted), logits.dtype),)


@dataclass(frozen=True)
class CrossEntropyGrad(Op):
    """dlogits[..., C] = dloss[] * the gradient of CrossEntropy."""

    reduction: Reduction = Reduction.MEAN
    ignore_index: int = -100
    smoothing: float = 0.0

    name: ClassVar[str] = "cross_entropy_grad"
    code: ClassVar[int] = 41
    operands: ClassVar[tuple[str, ...]] = ("logits", "targets", "dloss")
    results: ClassVar[tuple[str, ...]] = ("dlogits",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        logits, targets, dloss = operands
        check_targets(logits, targets)
        assert logits is not None
        check(dloss == Type(()), f"cross_entropy_grad: dloss is {dloss}")
        return (logits,)

    def flops(self, node: Node) -> int:
        return 5 * next(node.reads).type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        logits, targets, dloss = operands
        assert logits is not None and targets is not None and dloss is not None
        classes = logits.shape[-1]
        counted = targets != self.ignore_index
        wanted = (1.0 - self.smoothing) * onehot(targets, classes, self.ignore_index, logits.dtype) + self.smoothing / classes
        scale = float(dloss) * row_weight(self.reduction, counted)
        return (np.where(counted[..., None], (np.exp(log_softmax(logits)) - wanted) * scale, 0.0).astype(logits.dtype),)


@dataclass(frozen=True)
class Softmax(Op):
    """y = softmax(x), or its logarithm, over the last axis."""

    log: bool = False

    name: ClassVar[str] = "softmax"
    code: ClassVar[int] = 42
    operands: ClassVar[tuple[str, ...]] = ("x",)
    results: ClassVar[tuple[str, ...]] = ("y",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        (x,) = operands
        assert x is not None
        check(len(x.shape) >= 1 and x.dtype is DType.F32, f"softmax: {x}")
        return (x,)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        return [build(SoftmaxGrad(self.log), dy, node.outputs[0]) if wanted[0] else None]

    def flops(self, node: Node) -> int:
        return 4 * super().flops(node)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        (x,) = operands
        assert x is not None
        logs = log_softmax(x)
        return (logs if self.log else np.exp(logs),)


@dataclass(frozen=True)
class SoftmaxGrad(Op):
    """dx of Softmax from dy and its result y."""

    log: bool = False

    name: ClassVar[str] = "softmax_grad"
    code: ClassVar[int] = 43
    operands: ClassVar[tuple[str, ...]] = ("dy", "y")
    results: ClassVar[tuple[str, ...]] = ("dx",)
    inplace: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        dy, y = operands
        assert dy is not None and y is not None
        check(dy == y and len(y.shape) >= 1, f"softmax_grad: {dy}, {y}")
        return (dy,)

    def flops(self, node: Node) -> int:
        return 4 * super().flops(node)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        dy, y = operands
        assert dy is not None and y is not None
        if self.log:
            return (dy - np.exp(y) * dy.sum(axis=-1, keepdims=True),)
        return (y * (dy - (dy * y).sum(axis=-1, keepdims=True)),)


@dataclass(frozen=True)
class NllLoss(Op):
    """loss[] = -scores[..., target], summed or averaged over the rows whose target is not ``ignore_index``."""

    reduction: Reduction = Reduction.MEAN
    ignore_index: int = -100

    name: ClassVar[str] = "nll_loss"
    code: ClassVar[int] = 44
    operands: ClassVar[tuple[str, ...]] = ("scores", "targets")
    results: ClassVar[tuple[str, ...]] = ("loss",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        check_targets(*operands)
        return (Type(()),)

    def gradient(self, build: Builder, node: Node, dy: Value, wanted: Sequence[bool]) -> list[Value | None]:
        check(not wanted[1], "nll_loss: class numbers have no gradient")
        scores, targets = node.inputs
        assert scores is not None
        grad = NllLossGrad(self.reduction, self.ignore_index, scores.shape[-1])
        return [build(grad, targets, dy) if wanted[0] else None, None]

    def flops(self, node: Node) -> int:
        targets = node.inputs[1]
        assert targets is not None
        return targets.type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        scores, targets = operands
        assert scores is not None and targets is not None
        hot = onehot(targets, scores.shape[-1], self.ignore_index, scores.dtype)
        weight = row_weight(self.reduction, targets != self.ignore_index)
        return (np.asarray(-np.sum(hot * scores) * weight, scores.dtype),)


@dataclass(frozen=True)
class NllLossGrad(Op):
    """dscores[..., C] of NllLoss; ``classes`` is C."""

    reduction: Reduction = Reduction.MEAN
    ignore_index: int = -100
    classes: int = 1

    name: ClassVar[str] = "nll_loss_grad"
    code: ClassVar[int] = 45
    operands: ClassVar[tuple[str, ...]] = ("targets", "dloss")
    results: ClassVar[tuple[str, ...]] = ("dscores",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        targets, dloss = operands
        assert targets is not None
        check(targets.dtype is DType.I32 and dloss == Type(()) and self.classes >= 1, f"nll_loss_grad: {targets}, {dloss}")
        return (Type((*targets.shape, self.classes)),)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        targets, dloss = operands
        assert targets is not None and dloss is not None
        hot = onehot(targets, self.classes, self.ignore_index, dloss.dtype)
        scale = -float(dloss) * row_weight(self.reduction, targets != self.ignore_index)
        return ((hot * scale).astype(dloss.dtype),)


@dataclass(frozen=True)
class ArgmaxMatch(Op):
    """correct[...] u8: 1 where the largest score is the target's, 0 where not, 2 where the target is ``ignore_index``.

    Of equal largest scores the first counts.
    """

    ignore_index: int = -100

    name: ClassVar[str] = "argmax_match"
    code: ClassVar[int] = 46
    operands: ClassVar[tuple[str, ...]] = ("scores", "targets")
    results: ClassVar[tuple[str, ...]] = ("correct",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        check_targets(*operands)
        assert operands[1] is not None
        return (Type(operands[1].shape, DType.U8),)

    def flops(self, node: Node) -> int:
        return next(node.reads).type.size

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        scores, targets = operands
        assert scores is not None and targets is not None
        hit = scores.argmax(axis=-1) == targets
        return (np.where(targets == self.ignore_index, 2, hit).astype(np.uint8),)
