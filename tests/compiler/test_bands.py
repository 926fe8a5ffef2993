"""The first layers in bands of rows: less memory, the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edgekit.backends.cortex_m.capability import CORTEX_M

from edgekit.compiler.bands import split_rows
from edgekit.compiler.compile import lower
from edgekit.compiler.layout import move_permutes
from edgekit.compiler.split import Peak, peak_of, split_wide
from edgekit.frontends.torch import capture
from edgekit.graph.entry import Entry, Role
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model
from edgekit.graph.op import Array
from edgekit.graph.ops.shape import Concat
from edgekit.training.fold import fold
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from edgekit.training.quantize import Quantized, quantize
from edgekit.training.scheme import choose
from examples.models import InvertedResidual

SIZE = 35  #: an odd size: bands are not alike


def network(update: str, kernel: int) -> Quantized:
    """Large images, two blocks of stride 2 with one of a residual between them, and a classifier."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 1, 1),
        InvertedResidual(8, 8, 2, 4, kernel),
        InvertedResidual(8, 8, 1, 4),
        InvertedResidual(8, 8, 2, 4, kernel),
        torch.nn.AdaptiveAvgPool2d(1),
    )
    model = torch.nn.Sequential(body, torch.nn.Flatten(), torch.nn.Linear(8, 3)).eval()
    samples = torch.randn(4, 3, SIZE, SIZE)
    captured = capture(model, (samples[:2], torch.zeros(2, dtype=torch.long)), "cross_entropy")
    folded, trainables = fold(move_permutes(captured), choose(captured, update).fractions)
    return quantize(folded, trainables, [samples.numpy()])


def step(q: Quantized, model: Model) -> Entry:
    return make_plan(model, q.trainables, SGD(lr=0.5))["train_step"]


def measure(q: Quantized, model: Model) -> Peak:
    return peak_of(lower(step(q, model), CORTEX_M).graph)


def after(q: Quantized, model: Model) -> dict[str, Array]:
    """The loss and the states after a step."""
    entry = step(q, model)
    rng = np.random.default_rng(0)
    feeds = {
        Role.INPUT: rng.integers(-128, 128, (2, 3, SIZE, SIZE)).astype(np.int8),
        Role.TARGET: np.array([1, 2], np.int32),
        Role.STEP: np.array([3, 4], np.int32),
    }
    made = interpret(entry.graph, {p.value: feeds[p.role] for p in entry.ports if p.role in feeds})
    loss = next(p.value for p in entry.ports if p.role is Role.LOSS)
    return {"loss": made[loss], **{v.name: made.get(v, a) for v, a in entry.graph.state.items()}}


@pytest.mark.parametrize(("update", "kernel", "share"), [("head", 3, 0.8), ("last:1", 5, 0.97)])
def test_bands_compute_the_same(update: str, kernel: int, share: float) -> None:
    q = network(update, kernel)
    banded = split_rows(q.model, lambda m: measure(q, m))
    banded.graph.validate()
    assert any(n.op == Concat(1) for n in banded.graph.nodes)
    plain = split_wide(q.model, lambda m: measure(q, m))
    assert measure(q, banded).nbytes < share * measure(q, plain).nbytes
    wanted, got = after(q, q.model), after(q, banded)
    assert wanted.keys() == got.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_what_is_trained_is_in_no_band() -> None:
    q = network("full", 3)
    banded = split_rows(q.model, lambda m: measure(q, m))
    assert not any(n.op == Concat(1) for n in banded.graph.nodes)
