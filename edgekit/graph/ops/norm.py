"""Normalisation ops that a compiler pass replaces before lowering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgekit.graph.op import Array, Op
from edgekit.graph.ops.linear import check
from edgekit.graph.value import Type


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * scale + shift over the last axis, with constant statistics.

    Code 0: never in a Program. ``edgekit/training/fold.py`` folds it into the convolution before it or makes it Affine.
    """

    eps: float = 1e-5

    name: ClassVar[str] = "batch_norm"
    code: ClassVar[int] = 0
    operands: ClassVar[tuple[str, ...]] = ("x", "mean", "var", "scale?", "shift?")
    results: ClassVar[tuple[str, ...]] = ("y",)

    def infer(self, *operands: Type | None) -> tuple[Type, ...]:
        x, *vectors = operands
        assert x is not None
        check(all(v is None or v.shape == x.shape[-1:] for v in vectors), f"batch_norm: {operands}")
        return (x,)

    def reference(self, *operands: Array | None) -> tuple[Array, ...]:
        x, mean, var, scale, shift = operands
        assert x is not None and mean is not None and var is not None
        y = (x - mean) / np.sqrt(var + self.eps)
        y = y if scale is None else y * scale
        return (np.asarray(y if shift is None else y + shift),)
