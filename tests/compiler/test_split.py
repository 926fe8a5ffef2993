"""Wide pairs and weight gradients in blocks: less memory, the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edgekit.backends.cpu.capability import CPU

from edgekit.compiler.compile import optimize, order
from edgekit.compiler.layout import move_permutes
from edgekit.compiler.parts import split_weight_gradients
from edgekit.compiler.schedule import liveness_peak
from edgekit.compiler.split import PARTS, Peak, peak_of, split_wide
from edgekit.frontends.torch import capture
from edgekit.graph.entry import Entry, Role
from edgekit.graph.graph import Graph
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model
from edgekit.graph.op import Array
from edgekit.graph.ops.quantized import QConv2d
from edgekit.graph.ops.update import SgdUpdate
from edgekit.training.fold import fold
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from edgekit.training.quantize import Quantized, quantize
from edgekit.training.scheme import choose
from examples.models import InvertedResidual

CLASSES = 3


@pytest.fixture(scope="module")
def samples() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(8, 3, 16, 16)


def network(samples: torch.Tensor, update: str) -> Quantized:
    """A stem and a block that widens 8 channels to 48 before it halves the image."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 1, 1), InvertedResidual(8, 16, 2, 6), torch.nn.AdaptiveAvgPool2d(1))
    model = torch.nn.Sequential(body, torch.nn.Flatten(), torch.nn.Linear(16, CLASSES)).eval()
    captured = capture(model, (samples[:2], torch.zeros(2, dtype=torch.long)), "cross_entropy")
    folded, trainables = fold(move_permutes(captured), choose(captured, update).fractions)
    return quantize(folded, trainables, [samples.numpy()])


def step(q: Quantized, model: Model) -> Entry:
    return make_plan(model, q.trainables, SGD(lr=0.5))["train_step"]


def after(graph: Graph, entry: Entry) -> dict[str, Array]:
    """The loss and the states after a step."""
    rng = np.random.default_rng(0)
    feeds = {
        Role.INPUT: rng.integers(-128, 128, (2, 3, 16, 16)).astype(np.int8),
        Role.TARGET: np.array([1, 2], np.int32),
        Role.STEP: np.array([3, 4], np.int32),
    }
    made = interpret(graph, {p.value: feeds[p.role] for p in entry.ports if p.role in feeds})
    loss = next(p.value for p in entry.ports if p.role is Role.LOSS)
    return {"loss": made[loss], **{v.name: made.get(v, a) for v, a in graph.state.items()}}


def measure(q: Quantized, model: Model) -> Peak:
    return peak_of(order(optimize(step(q, model).graph, CPU), CPU))


@pytest.mark.parametrize("update", ["head", "full", "bias:4"])
def test_a_split_pair_computes_the_same(samples: torch.Tensor, update: str) -> None:
    q = network(samples, update)
    narrow = split_wide(q.model, lambda m: measure(q, m))
    narrow.graph.validate()
    before, then = measure(q, q.model), measure(q, narrow)
    assert then.nbytes < 0.75 * before.nbytes
    products = sum(isinstance(n.op, QConv2d) for n in narrow.graph.nodes) - sum(
        isinstance(n.op, QConv2d) for n in q.model.graph.nodes
    )
    assert products + 2 in [2 * p for p in (*PARTS, 6)]  # 48 channels make six eights
    whole, parts = (after(e.graph, e) for e in (step(q, q.model), step(q, narrow)))
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        error = np.abs(array.astype(float) - parts[name])
        assert error.max() <= (1 if array.dtype.kind == "i" else 1e-9), name
        assert np.mean(error > 0) < 0.01, f"{name}: only rounding at a tie may differ"


def test_nothing_is_split_where_it_saves_nothing(samples: torch.Tensor) -> None:
    q = network(samples, "head")
    calls: list[Model] = []

    def constant(model: Model) -> Peak:
        calls.append(model)
        return Peak(1000, frozenset({"0.1.conv.0.0", "0.1.conv.1.0"}))

    assert split_wide(q.model, constant) is q.model
    assert len(calls) == 1 + len(PARTS)


def test_weight_gradients_in_blocks_give_the_same_integers(samples: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(768, 40), torch.nn.ReLU(), torch.nn.Linear(40, CLASSES)
    ).eval()
    captured = capture(model, (samples[:2], torch.zeros(2, dtype=torch.long)), "cross_entropy")
    folded, trainables = fold(move_permutes(captured), choose(captured, "full").fractions)
    q = quantize(folded, trainables, [samples.numpy()])
    entry = step(q, q.model)
    whole = optimize(entry.graph, CPU)
    parts = split_weight_gradients(whole)
    parts.validate()
    starts = [
        n.op.start for n in parts.nodes if isinstance(n.op, SgdUpdate) and n.inputs[0] is not None and len(n.inputs[0].shape) > 1
    ]
    assert starts == [0, 96, 192, 288, 384, 480, 576, 672, 0]
    assert liveness_peak(order(parts, CPU)) < 0.5 * liveness_peak(order(whole, CPU))
    one, other = after(whole, entry), after(parts, entry)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
