"""Whole Programs, their bytes run in a simulated arena, against torch.optim.SGD."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgekit.compiler import compile_program
from edgekit.compiler.compile import lower
from edgekit.compiler.rewrite import roots
from edgekit.graph.entry import Role
from edgekit.graph.model import Model, Trainable
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.ops.update import SgdUpdate
from edgekit.program import Program
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import (
    Everything,
    Net,
    Nothing,
    everything,
    gated,
    inverted_residuals,
    residuals,
    torch_gradients,
    train_only,
)
from tests.support.simulator import Simulator

NETS = {"inverted residuals": inverted_residuals, "residuals": residuals, "gated": gated}
PARTS = {
    "full": None,
    "biases": "bias",
    "head": "linear",
    "sparse": {"conv2.weight": 2, "conv4.weight": 3, "conv4.bias": None},
}


def choose(model: Model, part: object) -> list[Trainable]:
    if part is None:
        return everything(model)
    if isinstance(part, dict):
        return train_only(model, part)
    return train_only(model, {v.name: None for v in model.graph.state if str(part) in v.name})


def feeds_of(net: Net, model: Model, count: int) -> list[dict[tuple[Role, int], np.ndarray]]:
    raw = [net.feeds(model) for _ in range(count)]
    return [{(Role.INPUT, 0): f[net.x].astype(np.float32), (Role.TARGET, 0): f[model.targets]} for f in raw]


def torch_training(
    net: Net, model: Model, trained: list[Trainable], optimizer: SGD, feeds: list, accumulate: int = 1, clip: float | None = None
) -> tuple[list[float], list[np.ndarray]]:
    """The losses, and the trained arrays after the last step, by torch autograd and torch.optim.SGD in float64."""
    graph = copy.copy(model.graph)
    graph.state = dict(graph.state)
    values = [t.value for t in trained]
    parameters = [torch.tensor(graph.state[v], dtype=torch.float64, requires_grad=True) for v in values]
    sgd = torch.optim.SGD(
        parameters, lr=optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay, nesterov=optimizer.nesterov
    )
    losses = []
    for start in range(0, len(feeds), accumulate):
        sgd.zero_grad()
        for f in feeds[start : start + accumulate]:
            graph.state.update({v: p.detach().numpy().copy() for v, p in zip(values, parameters, strict=True)})
            loss, grads = torch_gradients(graph, model.loss, values, {net.x: f[Role.INPUT, 0], model.targets: f[Role.TARGET, 0]})
            losses.append(loss)
            for p, g, t in zip(parameters, grads, trained, strict=True):
                if t.channels is not None and t.in_axis is not None:
                    shape = [-1 if i == t.in_axis else 1 for i in range(g.ndim)]
                    g = g * (np.arange(g.shape[t.in_axis]) < t.channels).reshape(shape)
                p.grad = torch.as_tensor(g / accumulate) + (0 if p.grad is None else p.grad)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        sgd.step()
    return losses, [p.detach().numpy() for p in parameters]


def compiled(
    model: Model, trained: list[Trainable], optimizer: SGD, backend: Everything, accumulate: int = 1, clip: float | None = None
) -> Program:
    entries = make_plan(model, trained, optimizer, accumulate=accumulate, clip_norm=clip)
    return compile_program(entries, capability=backend, batch=2, accumulate=accumulate, metadata={"model": "net"})  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", [Everything(), Nothing()], ids=["fused", "unfused"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", NETS)
def test_steps_follow_torch(name: str, part: str, backend: Everything) -> None:
    net, model = NETS[name]()
    trained = choose(model, PARTS[part])
    optimizer = SGD(0.05, momentum=0.9, nesterov=True)
    feeds = feeds_of(net, model, 3)
    losses, ends = torch_training(net, model, trained, optimizer, feeds)
    board = Simulator(compiled(model, trained, optimizer, backend))
    for f, expected in zip(feeds, losses, strict=True):
        loss = board.run("train_step", f)[Role.LOSS, 0]
        np.testing.assert_allclose(loss, expected, rtol=2e-5)
    for t, end in zip(trained, ends, strict=True):
        np.testing.assert_allclose(board.state(t.value.name), end, rtol=1e-4, atol=1e-5, err_msg=t.value.name)


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "clip"),
    [
        (SGD(0.1), 1, None),
        (SGD(0.1, weight_decay=0.01), 1, 0.05),
        (SGD(0.1, 0.9, 0.01), 2, None),
        (SGD(0.1, 0.9, 0.01, True), 2, 0.1),
    ],
)
def test_optimizers_follow_torch(optimizer: SGD, accumulate: int, clip: float | None) -> None:
    net, model = residuals()
    trained = everything(model)
    feeds = feeds_of(net, model, 4)
    losses, ends = torch_training(net, model, trained, optimizer, feeds, accumulate, clip)
    program = compiled(model, trained, optimizer, Everything(), accumulate, clip)
    assert ("update" in program.entries) == (accumulate > 1)
    board = Simulator(program)
    for i, (f, expected) in enumerate(zip(feeds, losses, strict=True)):
        np.testing.assert_allclose(board.run("train_step", f)[Role.LOSS, 0], expected, rtol=2e-5)
        if accumulate > 1 and (i + 1) % accumulate == 0:
            board.run("update", {})
    for t, end in zip(trained, ends, strict=True):
        np.testing.assert_allclose(board.state(t.value.name), end, rtol=1e-4, atol=1e-5, err_msg=t.value.name)


def test_evaluate_and_predict_read_the_trained_state() -> None:
    net, model = residuals()
    trained = everything(model)
    (feeds,) = feeds_of(net, model, 1)
    board = Simulator(compiled(model, trained, SGD(0.1), Everything()))
    before = board.run("predict", feeds)[Role.OUTPUT, 0]
    first = board.run("train_step", feeds)[Role.LOSS, 0]
    after = board.run("evaluate", feeds)
    assert after[Role.LOSS, 0] < first
    np.testing.assert_array_equal(after[Role.OUTPUT, 0], board.run("predict", feeds)[Role.OUTPUT, 0])
    assert not np.array_equal(before, after[Role.OUTPUT, 0])
    hit = after[Role.OUTPUT, 0].argmax(1) == feeds[Role.TARGET, 0]
    np.testing.assert_array_equal(after[Role.CORRECT, 0], hit.astype(np.uint8))


def test_inference_holds_nothing_of_training() -> None:
    _net, model = inverted_residuals()
    program = compiled(model, everything(model), SGD(0.1, 0.9), Everything())
    for name in ("evaluate", "predict"):
        for o in program.entries[name].ops:
            assert not o.op.name.endswith("_grad")
            assert not isinstance(o.op, SgdUpdate)
            assert all(n is None for n in o.outputs[1:]), "no mask, no saved argument"


def test_fusion_leaves_products_only() -> None:
    _net, model = inverted_residuals()
    program = compiled(model, everything(model), SGD(0.1), Everything())
    names = [o.op.name for o in program.entries["train_step"].ops]
    assert not {"unary", "binary", "unary_grad", "reduce"}.intersection(names), names
    assert names.count("apply_mask") == 1, "the last activation's, which a pool follows"


def test_a_parameter_is_updated_as_soon_as_its_gradient_exists() -> None:
    _net, model = inverted_residuals()
    graph = lower(make_plan(model, everything(model), SGD(0.1))["train_step"], Everything()).graph  # type: ignore[arg-type]
    view = roots(graph)
    for i, node in enumerate(graph.nodes):
        if isinstance(node.op, SgdUpdate):
            needs = {view.get(v, v) for v in node.reads}
            ready = max(
                j
                for j, n in enumerate(graph.nodes)
                if j != i
                and (needs & {view.get(v, v) for v in n.reads} or needs & set(n.writes))
                and not isinstance(n.op, Reshape)
            )
            assert ready < i, "an op reads the parameter after its update"
            between = [n.op.name for n in graph.nodes[ready + 1 : i] if not isinstance(n.op, (SgdUpdate, Reshape))]
            assert not between, between
