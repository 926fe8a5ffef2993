"""What an int8 prefix costs in accuracy, measured before anything is trained: the float network and the one that begins in int8
on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.graph.graph import Graph
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model
from edgekit.graph.op import Array
from edgekit.graph.value import Value
from edgekit.program.inspect import Int8Cost
from edgekit.training.plan import restrict, without_dropout
from edgekit.training.quantize import Quantized


def measure(model: Model, whole: Quantized, inputs: Sequence[Array], targets: Array | None) -> Int8Cost:
    """Run both on ``inputs``, whole batches of samples, and their targets if there are any."""
    batch = model.inputs[0].shape[0]
    with_loss = targets is not None and model.targets is not None
    left, right = (_readable(m, list(b), with_loss) for m, b in ((model, whole.boundary), (whole.model, whole.boundary.values())))
    noise, error = [_Ratio() for _ in whole.boundary], _Ratio()
    same: list[bool] = []
    losses: list[tuple[float, float]] = []
    for start in range(0, len(inputs[0]) - batch + 1, batch):
        rows = slice(start, start + batch)
        given = [a[rows] for a in inputs], None if targets is None else targets[rows]
        exact, made = left.run(*given), right.run(*given)
        for ratio, x, y in zip(noise, exact.boundary, made.boundary, strict=True):
            ratio.add(x, y)
        for x, y in zip(exact.outputs, made.outputs, strict=True):
            error.add(x, y)
        if model.classes is not None:
            same += (exact.outputs[0].argmax(axis=-1) == made.outputs[0].argmax(axis=-1)).ravel().tolist()
        if exact.loss is not None and made.loss is not None:
            losses.append((exact.loss, made.loss))
    return Int8Cost(
        samples=len(inputs[0]) // batch * batch,
        signal_to_noise=round(min(-20 * math.log10(max(r.value, 1e-9)) for r in noise), 2),
        output_error=round(error.value, 6),
        agreement=round(sum(same) / len(same), 4) if same else None,
        loss={name: round(sum(c) / len(c), 6) for name, c in zip(("float32", "int8"), zip(*losses, strict=True), strict=False)}
        or None,
    )


@dataclass(frozen=True)
class _Made:
    """What a network makes of a batch."""

    boundary: list[Array]
    outputs: list[Array]
    loss: float | None


@dataclass(frozen=True)
class _Network:
    """One of the two, dropout left out, and what of it is looked at."""

    model: Model
    graph: Graph
    boundary: list[Value]

    def run(self, inputs: list[Array], targets: Array | None) -> _Made:
        model = self.model
        feeds = dict(zip(model.inputs, inputs, strict=True))
        if model.targets is not None and targets is not None:
            feeds[model.targets] = targets
        made = interpret(self.graph, feeds, dtype=np.float32)
        loss = float(made[model.loss]) if model.loss in self.graph.outputs else None
        return _Made([made[v] for v in self.boundary], [made[v] for v in model.outputs], loss)


def _readable(model: Model, boundary: list[Value], with_loss: bool) -> _Network:
    model = without_dropout(model)
    return _Network(model, restrict(model.graph, [*boundary, *model.outputs, *([model.loss] if with_loss else [])]), boundary)


class _Ratio:
    """|x - y| / |x| over all that was added."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0

    def add(self, x: Array, y: Array) -> None:
        exact = x.astype(np.float64)
        self._signal += float(np.square(exact).sum())
        self._noise += float(np.square(exact - y).sum())

    @property
    def value(self) -> float:
        return math.sqrt(self._noise / self._signal) if self._signal else 0.0
