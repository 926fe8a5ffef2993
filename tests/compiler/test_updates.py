"""Steps within products: the same numbers, no gradient in memory, and only where nothing speaks against it."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compiler import compile_program
from edgekit.compiler.schedule import liveness_peak
from edgekit.compiler.updates import fuse_updates
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph
from edgekit.graph.interpret import interpret
from edgekit.graph.ops.linear import Linear, LinearInputGrad, LinearWeightGrad
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.ops.update import SgdUpdate
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import Everything, Nothing, everything, inverted_residuals

ROWS, INPUTS, OUTPUTS = 6, 4, 8


class Layer:
    """A layer with both gradients, its bias's step before its weight's, as backward is ordered."""

    def __init__(self, **step: float) -> None:
        self.build = build = Builder()
        rng = np.random.default_rng(0)
        self.x, self.dy = build.input("x", (ROWS, INPUTS)), build.input("dy", (ROWS, OUTPUTS))
        self.w = build.state("w", rng.normal(size=(1, 1, INPUTS, OUTPUTS)))
        self.b = build.state("b", rng.normal(size=OUTPUTS))
        view = build(Reshape.to((INPUTS, OUTPUTS)), self.w)
        self.dw, self.db = build.emit(LinearWeightGrad(), self.x, self.dy, None, results=(0, 1))
        build.emit(SgdUpdate(**step), self.b, self.db, results=())
        self.grad = build(Reshape.to(self.w.shape), self.dw)
        self.dx = build(LinearInputGrad(), self.dy, view, None, None)
        build.graph.outputs.append(self.dx)

    def update(self, *more: object, **step: float) -> Graph:
        self.build.emit(SgdUpdate(**step), self.w, self.grad, *more, results=())  # type: ignore[arg-type]
        return self.build.graph


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes if not isinstance(node.op, Reshape)]


def fused(graph: Graph) -> Graph:
    after = fuse_updates(graph, Everything())  # type: ignore[arg-type]
    after.validate()
    return after


def test_the_step_goes_into_the_product_behind_what_reads_the_old_weight() -> None:
    layer = Layer()
    graph = layer.update()
    after = fused(graph)
    assert ops(after) == ["linear_input_grad", "linear_sgd", "sgd_update"]
    assert liveness_peak(after) <= liveness_peak(graph)
    feeds = {v: np.random.default_rng(1).normal(size=v.shape) for v in graph.inputs}
    one, two = interpret(graph, feeds), interpret(after, feeds)
    for v in (layer.w, layer.b, layer.dx):
        np.testing.assert_array_equal(one[v], two[v])


def test_a_clipped_step_stays() -> None:
    layer = Layer()
    clip = layer.build.constant("clip", np.array(0.5))
    assert "linear_sgd" not in ops(fused(layer.update(None, None, None, clip)))


def test_factors_of_every_element_stay() -> None:
    layer = Layer()
    factor = layer.build.constant("factor", np.ones((1, 1, INPUTS, OUTPUTS)))
    assert "linear_sgd" not in ops(fused(layer.update(None, factor)))


def test_a_gradient_that_others_read_stays() -> None:
    layer = Layer()
    layer.build(Linear(), layer.dy, layer.build(Reshape.to((OUTPUTS, INPUTS)), layer.dw), None)
    assert "linear_sgd" not in ops(fused(layer.update()))


def test_a_bias_gradient_that_others_read_first_stays() -> None:
    layer = Layer()
    layer.build(Reshape.to((1, OUTPUTS)), layer.db)
    assert "linear_sgd" not in ops(fused(layer.update()))


def test_a_backend_without_the_kernel_keeps_both() -> None:
    graph = Layer().update()
    assert fuse_updates(graph, Nothing()) is graph  # type: ignore[arg-type]


def test_what_would_raise_the_peak_stays() -> None:
    """The product's operand would live on beside the large array that is made meanwhile."""
    build, rows = Builder(), 2 * OUTPUTS
    first, dy = build.input("first", (rows, 64)), build.input("dy", (rows, OUTPUTS))
    x = build(Linear(), first, build.constant("v", np.ones((64, 1024))), None)
    w = build.state("w", np.ones((1024, OUTPUTS)))
    dw = build(LinearWeightGrad(), x, dy, None)
    build.graph.outputs.append(build(LinearInputGrad(), dy, w, None, None))
    build.emit(SgdUpdate(), w, dw, results=())
    assert fused(build.graph) is build.graph


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_whole_steps_have_them(momentum: float) -> None:
    """The report of what is trained counts them too."""
    _net, model = inverted_residuals()
    plan = make_plan(model, everything(model), SGD(0.1, momentum))
    program = compile_program(plan, capability=Everything())  # type: ignore[arg-type]
    names = [o.op.name for o in program.entries["train_step"].ops]
    assert names.count("linear_sgd") >= 2
    found = {u.value: u.updated_shape for u in program.report().updated}
    for v in everything(model):
        assert found[v.value.name] == v.value.shape
