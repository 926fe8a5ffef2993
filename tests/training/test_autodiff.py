"""Gradients against torch autograd, and what a pruned training graph does not contain."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import UnsupportedError
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Origin
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model, Trainable
from edgekit.graph.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from edgekit.graph.ops.elementwise import Unary
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import Linear, LinearInputGrad, LinearWeightGrad
from edgekit.graph.ops.loss import CrossEntropyGrad
from edgekit.graph.ops.shape import Slice
from edgekit.graph.value import DType
from edgekit.training.autodiff import Differentiated, differentiate
from tests.support.graphs import (
    Net,
    everything,
    gated,
    inverted_residuals,
    residuals,
    torch_gradients,
    train_only,
    trainable,
)

NETS = {"inverted residuals": inverted_residuals, "residuals": residuals, "gated": gated}


def check_against_torch(net: Net, model: Model, trained: list[Trainable], seed: float = 1.0) -> Differentiated:
    feeds = net.feeds(model)
    step = differentiate(model.graph, model.loss, trained, seed)
    step.graph.validate()
    values = interpret(step.graph, feeds)
    loss, wanted = torch_gradients(model.graph, model.loss, [t.value for t in trained], feeds)
    np.testing.assert_allclose(values[model.loss], loss, rtol=1e-12)
    for t, expected in zip(trained, wanted, strict=True):
        assert expected is not None
        if t.channels is not None and t.in_axis is not None:
            expected = np.take(expected, range(t.channels), t.in_axis)
        found = values[step.gradients[t.value]]
        np.testing.assert_allclose(found, seed * expected, rtol=1e-9, atol=1e-13, err_msg=t.value.name)
    return step


@pytest.mark.parametrize("name", NETS)
def test_every_gradient_of_a_whole_network(name: str) -> None:
    net, model = NETS[name]()
    check_against_torch(net, model, everything(model), seed=0.25)


@pytest.mark.parametrize(
    ("make", "name", "channels"),
    [
        (inverted_residuals, "conv2.weight", 2),  # 1×1
        (inverted_residuals, "conv3.weight", 7),  # depthwise
        (residuals, "conv2.weight", 3),  # dense 3×3
        (residuals, "conv3.weight", 1),  # two groups
        (residuals, "linear7.weight", 5),
    ],
)
def test_a_slice_of_a_weight(make: object, name: str, channels: int) -> None:
    net, model = make()  # type: ignore[operator]
    trained = train_only(model, {name: channels, name.replace("weight", "bias"): None})
    if name == "conv3.weight" and make is residuals:
        assert trained[0].value.shape[2] == 4
    step = check_against_torch(net, model, trained)
    grad = step.gradients[trained[0].value]
    maker = step.graph.producers()[grad]
    assert isinstance(maker.op, (Conv2dWeightGrad, LinearWeightGrad)), "only the slice's gradient is computed"


def test_the_slice_is_taken_in_the_forward_pass() -> None:
    net, model = residuals()
    step = check_against_torch(net, model, train_only(model, {"conv2.weight": 3}))
    kinds = [type(n.op) for n in step.graph.nodes]
    assert kinds.index(Slice) < kinds.index(CrossEntropyGrad)
    sliced = next(n for n in step.graph.nodes if isinstance(n.op, Slice)).inputs[0]
    readers = [n for n in step.graph.nodes[kinds.index(CrossEntropyGrad) :] if sliced in n.inputs]
    assert not readers, "backward reads the slice only"


def test_head_only_has_no_convolution_gradients() -> None:
    net, model = inverted_residuals()
    head = [v.name for v in model.graph.state if v.name.startswith("linear")]
    step = check_against_torch(net, model, train_only(model, dict.fromkeys(head)))
    backward = step.graph.nodes[len(model.graph.nodes) :]
    assert [type(n.op) for n in backward] == [CrossEntropyGrad, LinearWeightGrad]


def test_bias_only_keeps_masks_and_no_activations() -> None:
    net, model = inverted_residuals()
    biases = [v.name for v in model.graph.state if v.name.endswith("bias")]
    step = check_against_torch(net, model, train_only(model, dict.fromkeys(biases)))
    forward, backward = step.graph.nodes[: len(model.graph.nodes)], step.graph.nodes[len(model.graph.nodes) :]
    assert not [n for n in backward if isinstance(n.op, (Conv2dWeightGrad, LinearWeightGrad))]
    made = {v for n in forward for v in n.writes}
    saved = {v for n in backward for v in n.reads if v in made}
    kept = {v.name for v in saved if v.dtype is DType.F32}
    assert kept == {model.outputs[0].name}, "the loss's gradient reads the logits; all else is masks"
    assert [v for v in saved if v.dtype is DType.BITS]


def test_the_first_layers_input_has_no_gradient() -> None:
    net, model = inverted_residuals()
    step = check_against_torch(net, model, everything(model))
    inputs = [n for n in step.graph.nodes if isinstance(n.op, (Conv2dInputGrad, LinearInputGrad))]
    products = [n for n in step.graph.nodes if isinstance(n.op, (Conv2d, Linear))]
    assert len(inputs) == len(products) - 1


def test_frozen_layers_below_the_first_trained_one_are_not_differentiated() -> None:
    net, model = inverted_residuals(blocks=3)
    names = [v.name for v in model.graph.state if v.name.startswith(("conv10", "conv11", "linear"))]
    step = check_against_torch(net, model, train_only(model, dict.fromkeys(names)))
    assert sum(isinstance(n.op, (Conv2dInputGrad, LinearInputGrad)) for n in step.graph.nodes) == 2
    masks = [v for n in step.graph.nodes for v in n.writes if v.dtype is DType.BITS]
    assert len(masks) == 1, "only activations on the way of the gradient save a mask"


def test_an_array_that_two_layers_share() -> None:
    b = Builder()
    x = b.input("x", (3, 4))
    w = b.state("w", np.random.default_rng(0).standard_normal((4, 4)))
    y = b(Linear(), b(Unary(Function.TANH), b(Linear(), x, w)), w)
    model = Net((3, 4, 4, 1))
    model.build = b
    model.x, model.shape = x, (3, 4)
    from edgekit.graph.ops.loss import CrossEntropy

    targets = b.input("targets", (3,), DType.I32)
    loss = b(CrossEntropy(), y, targets)
    whole = Model(b.graph, [x], targets, [y], loss, {}, [], 4, -100)
    check_against_torch(model, whole, [trainable(w)])
    check_against_torch(model, whole, [trainable(w, 3, 0)])


def test_a_trainable_that_the_loss_does_not_depend_on_has_no_gradient() -> None:
    net, model = residuals()
    stray = net.build.state("stray", np.ones(3))
    step = differentiate(model.graph, model.loss, [*everything(model), trainable(stray)])
    assert stray not in step.gradients


def test_a_missing_rule_names_the_op_and_the_module() -> None:
    b = Builder(origin=Origin("features.3", "net.py:7"))
    x = b.input("x", (3, 4))
    w = b.state("w", np.zeros((4, 4)))
    y = b(Linear(Function.RELU), x, w)  # already fused: differentiation comes before fusion
    with pytest.raises(UnsupportedError, match=r"linear in module 'features\.3' \(net\.py:7\)"):
        differentiate(b.graph, y, [trainable(w)])
