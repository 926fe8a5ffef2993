"""Every pass alone: what it rewrites, what it leaves, and that the numbers stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgekit.compiler.backward import fuse_backward, fuse_bias_gradients
from edgekit.compiler.common import merge_common
from edgekit.compiler.constants import fold_constants
from edgekit.compiler.dead import remove_dead
from edgekit.compiler.epilogue import fuse_epilogues
from edgekit.compiler.linearize import linearize
from edgekit.compiler.masks import drop_masks
from edgekit.compiler.recompute import recompute_parameters
from edgekit.compiler.scale import fuse_scale_gradients
from edgekit.compiler.schedule import forward_length, schedule
from edgekit.compiler.sink import sink_slices
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph
from edgekit.graph.interpret import interpret
from edgekit.graph.op import Op
from edgekit.graph.ops.conv import Conv2d, Conv2dWeightGrad
from edgekit.graph.ops.elementwise import Affine, ApplyMask, Binary, Reduce, Unary, UnaryGrad
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.linear import Linear, LinearInputGrad, LinearWeightGrad
from edgekit.graph.ops.shape import Permute, Reshape, Slice
from edgekit.graph.ops.update import SgdUpdate
from edgekit.graph.value import DType, Value
from edgekit.training.absorb import absorb_affines
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import Everything, Nothing, everything, gated, inverted_residuals, residuals

Pass = Callable[[Graph], Graph]
ALL = Everything()
PASSES: dict[str, Pass] = {
    "linearize": linearize,
    "fold_constants": fold_constants,
    "merge_common": merge_common,
    "remove_dead": remove_dead,
    "fuse_epilogues": lambda g: fuse_epilogues(g, ALL),  # type: ignore[arg-type]
    "fuse_backward": lambda g: fuse_backward(g, ALL),  # type: ignore[arg-type]
    "fuse_bias_gradients": lambda g: fuse_bias_gradients(g, ALL),  # type: ignore[arg-type]
    "fuse_scale_gradients": lambda g: fuse_scale_gradients(g, ALL),  # type: ignore[arg-type]
    "drop_masks": lambda g: drop_masks(g, ALL, forward_length(g)),  # type: ignore[arg-type]
    "sink_slices": sink_slices,
    "recompute_parameters": recompute_parameters,
    "schedule": schedule,
}


def kinds(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def same_results(before: Graph, after: Graph, seed: int = 0) -> None:
    """Both graphs compute the same outputs and leave the same state."""
    after.validate()
    rng = np.random.default_rng(seed)
    feeds = {v: rng.standard_normal(v.shape) if v.dtype is DType.F32 else rng.integers(0, 4, v.shape) for v in before.inputs}
    first, second = interpret(before, feeds), interpret(after, feeds)
    for v in [*before.outputs, *before.state]:
        np.testing.assert_allclose(second[v], first[v], rtol=1e-10, atol=1e-12, err_msg=v.name)


@pytest.mark.parametrize("make", [inverted_residuals, residuals, gated])
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_keeps_the_numbers_of_a_whole_training_step(name: str, make: Callable[[], tuple]) -> None:
    _net, model = make()
    graph = make_plan(model, everything(model), SGD(0.1, 0.9))["train_step"].graph
    same_results(graph, PASSES[name](graph))


class Small:
    """A graph over an input x."""

    def __init__(self, *shape: int) -> None:
        self.b = Builder()
        self.rng = np.random.default_rng(1)
        self.x = self.b.input("x", shape)

    def constant(self, *shape: int) -> Value:
        return self.b.constant("c", self.rng.standard_normal(shape))

    def op(self, op: Op, *operands: Value | None) -> Value:
        return self.b(op, *operands)

    def done(self, *outputs: Value) -> Graph:
        self.b.graph.outputs = list(outputs)
        return self.b.graph


def test_linearize_takes_plain_1x1_convolutions_only() -> None:
    g = Small(2, 4, 4, 8)
    ys = [
        g.op(Conv2d(), g.x, g.constant(1, 1, 8, 6), g.constant(6)),
        g.op(Conv2d((2, 2)), g.x, g.constant(1, 1, 8, 6)),
        g.op(Conv2d(groups=2), g.x, g.constant(1, 1, 4, 6)),
        g.op(Conv2d(padding=(1, 0, 0, 0)), g.x, g.constant(1, 1, 8, 6)),
        g.op(Conv2d(padding=(1, 1, 1, 1)), g.x, g.constant(3, 3, 8, 6)),
    ]
    before = g.done(*ys)
    after = linearize(before)
    assert kinds(after) == ["reshape", "linear", "conv2d", "conv2d", "conv2d", "conv2d"]
    same_results(before, after)


def test_constants_fold_but_do_not_grow() -> None:
    g = Small(3)
    a = g.op(Binary(Arithmetic.ADD), g.constant(3), g.constant(3))
    b = g.op(Unary(Function.NEG), a)
    wide = g.op(Binary(Arithmetic.MUL), g.constant(200, 1), g.constant(1, 200))
    before = g.done(g.op(Binary(Arithmetic.MUL), g.x, b), g.op(Reduce(Reduction.SUM, 3), wide))
    after = remove_dead(fold_constants(before))
    assert kinds(after) == ["binary", "binary", "reduce"], "the outer product is larger than its operands"
    same_results(before, after)


def test_dead_code_goes_with_its_masks_and_constants() -> None:
    g = Small(3)
    g.op(Binary(Arithmetic.ADD), g.x, g.constant(3))
    y, _mask = g.b.emit(Unary(Function.RELU), g.x, results=(0, 1))
    after = remove_dead(g.done(y))
    assert kinds(after) == ["unary"]
    assert after.nodes[0].outputs[1] is None
    assert not after.constants


def test_updates_are_never_dead() -> None:
    g = Small(3)
    p = g.b.state("p", np.ones(3))
    g.b.emit(SgdUpdate(0.1), p, g.op(Unary(Function.NEG), g.x), results=())
    assert kinds(remove_dead(g.done())) == ["unary", "sgd_update"]


def test_common_permutes_are_made_once_and_results_joined() -> None:
    g = Small(2, 3)
    a, b = g.op(Permute.of(1, 0), g.x), g.op(Permute.of(1, 0), g.x)
    y = g.op(Unary(Function.RELU), a)
    (mask,) = g.b.emit(Unary(Function.RELU), b, results=(1,))
    before = g.done(g.op(ApplyMask(), y, mask))
    after = merge_common(before)
    assert kinds(after) == ["permute", "unary", "apply_mask"]
    assert all(v is not None for v in after.nodes[1].outputs)
    same_results(before, after)


def test_a_read_after_an_update_is_not_merged_with_one_before() -> None:
    g = Small(3)
    p = g.b.state("p", np.ones(3))
    before = g.op(Unary(Function.NEG), p)
    g.b.emit(SgdUpdate(0.1), p, g.x, results=())
    after = g.op(Unary(Function.NEG), p)
    graph = g.done(before, after)
    assert len(merge_common(graph).nodes) == 3


def test_bias_residual_and_activation_go_into_the_product() -> None:
    g = Small(2, 4, 4, 3)
    y = g.op(Conv2d(), g.x, g.constant(1, 1, 3, 5))
    y = g.op(Binary(Arithmetic.ADD), y, g.constant(5))
    y = g.op(Binary(Arithmetic.ADD), g.constant(2, 4, 4, 5), y)
    y, mask = g.b.emit(Unary(Function.RELU6), y, results=(0, 1))
    before = g.done(y, g.op(ApplyMask(), y, mask))
    after = fuse_epilogues(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["conv2d", "apply_mask"]
    conv = after.nodes[0]
    assert conv.op == Conv2d(act=Function.RELU6)
    assert all(v is not None for v in conv.inputs)
    assert conv.outputs[1] is mask
    same_results(before, after)


def test_the_argument_of_hardswish_survives_as_pre() -> None:
    g = Small(4, 3)
    pre = g.op(Linear(), g.x, g.constant(3, 5))
    y = g.op(Unary(Function.HARDSWISH), pre)
    before = g.done(g.op(UnaryGrad(Function.HARDSWISH), y, pre))
    after = fuse_epilogues(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["linear", "unary_grad"]
    assert after.nodes[0].outputs[2] is pre
    same_results(before, after)


def test_a_result_that_others_read_is_not_swallowed() -> None:
    g = Small(4, 5)
    y = g.op(Linear(), g.x, g.constant(5, 5))
    before = g.done(g.op(Binary(Arithmetic.ADD), y, g.x), g.op(Reduce(Reduction.SUM, 1), y))
    after = fuse_epilogues(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["linear", "binary", "reduce"]


def test_a_graph_output_is_not_swallowed() -> None:
    g = Small(4, 5)
    y = g.op(Linear(), g.x, g.constant(5, 5))
    z = g.op(Unary(Function.RELU), y)
    after = fuse_epilogues(g.done(y, z), ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["linear"]
    assert after.nodes[0].outputs == (z, None, y)


def test_both_sides_of_a_sum_are_products() -> None:
    g = Small(4, 5)
    a, b = g.op(Linear(), g.x, g.constant(5, 5)), g.op(Linear(), g.x, g.constant(5, 5))
    before = g.done(g.op(Binary(Arithmetic.ADD), a, b))
    after = fuse_epilogues(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["linear", "linear"]
    assert after.nodes[1].inputs[3] is a, "the later one takes the earlier one's result"
    same_results(before, after)


def test_an_affine_takes_its_activation() -> None:
    g = Small(4, 5)
    y = g.op(Unary(Function.RELU), g.op(Affine(), g.x, g.constant(5), g.constant(5)))
    before = g.done(y)
    after = fuse_epilogues(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["affine"]
    same_results(before, after)


def test_nothing_is_fused_that_the_backend_has_no_kernel_for() -> None:
    _net, model = inverted_residuals()
    graph = make_plan(model, everything(model), SGD(0.1))["train_step"].graph
    for fuse in (fuse_epilogues, fuse_backward):
        assert kinds(fuse(graph, Nothing())).count("binary") == kinds(graph).count("binary")  # type: ignore[arg-type]


def test_addend_and_derivative_go_into_the_input_gradient() -> None:
    g = Small(4, 5)
    y, mask = g.b.emit(Unary(Function.RELU), g.constant(4, 3), results=(0, 1))
    dx = g.op(LinearInputGrad(), g.x, g.constant(3, 5))
    before = g.done(g.op(ApplyMask(), g.op(Binary(Arithmetic.ADD), dx, y), mask))
    after = fuse_backward(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["unary", "linear_input_grad"]
    assert after.nodes[1].op == LinearInputGrad(Function.RELU)
    assert after.nodes[1].inputs[2:] == (y, mask, None)
    same_results(before, after)


def test_a_dropout_mask_with_its_scale_stays_apart() -> None:
    g = Small(4, 5)
    _, mask = g.b.emit(Unary(Function.RELU), g.constant(4, 3), results=(0, 1))
    after = fuse_backward(g.done(g.op(ApplyMask(2.0), g.op(LinearInputGrad(), g.x, g.constant(3, 5)), mask)), ALL)  # type: ignore[arg-type]
    assert "apply_mask" in kinds(after)


def test_the_bias_gradient_joins_the_weights() -> None:
    g = Small(4, 5)
    dw = g.op(LinearWeightGrad(), g.constant(4, 3), g.x)
    before = g.done(dw, g.op(Reduce(Reduction.SUM, 1), g.x), g.op(Reduce(Reduction.MEAN, 1), g.x))
    after = fuse_bias_gradients(before, ALL)  # type: ignore[arg-type]
    assert kinds(after) == ["linear_weight_grad", "reduce"]
    same_results(before, after)


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (5, 4), (2, 3, 4)])
def test_a_scales_gradient_is_one_depthwise_pass_with_the_shifts(shape: tuple[int, ...]) -> None:
    g = Small(*shape)
    rows = (1 << (len(shape) - 1)) - 1
    scale = g.op(Reduce(Reduction.SUM, rows), g.op(Binary(Arithmetic.MUL), g.x, g.constant(*shape)))
    before = g.done(scale, g.op(Reduce(Reduction.SUM, rows), g.x))
    after = fuse_bias_gradients(merge_common(fuse_scale_gradients(before, ALL)), ALL)  # type: ignore[arg-type]
    computing = [n.op for n in after.nodes if not isinstance(n.op, Reshape)]
    assert computing[0] == Conv2dWeightGrad(groups=4)
    assert len(computing) == (1 if len(shape) == 4 else 2)
    same_results(before, after)


def test_an_affine_after_a_product_costs_parameters_only() -> None:
    g = Small(2, 4, 4, 3)
    w, bias, scale, shift = (
        g.b.state(n, g.rng.standard_normal(s)) for n, s in (("w", (3, 3, 3, 5)), ("b", 5), ("s", 5), ("t", 5))
    )
    y = g.op(Conv2d(padding=(1, 1, 1, 1)), g.x, w, bias)
    before = g.done(g.op(Affine(), y, scale, shift))
    after = absorb_affines(before, set())
    assert kinds(after) == ["binary", "binary", "binary", "conv2d"]
    same_results(before, after)
    assert absorb_affines(before, {w}).nodes == before.nodes, "a partly trained weight stays as it is"


def test_an_affine_of_what_others_read_stays() -> None:
    g = Small(4, 3)
    y = g.op(Linear(), g.x, g.constant(3, 5))
    before = g.done(g.op(Affine(), y, g.constant(5), g.constant(5)), y)
    assert kinds(absorb_affines(before, set())) == ["linear", "affine"]


def test_a_mask_goes_where_the_result_lives_on() -> None:
    g = Small(4, 5)
    y, mask = g.b.emit(Unary(Function.RELU6), g.x, results=(0, 1))
    loss = g.op(Reduce(Reduction.SUM, 3), y)
    dy = g.op(Binary(Arithmetic.MUL), y, loss)
    before = g.done(loss)
    before.outputs.append(g.op(ApplyMask(), dy, mask))
    after = remove_dead(drop_masks(before, ALL, 2))  # type: ignore[arg-type]
    assert kinds(after) == ["unary", "reduce", "binary", "unary_grad"]
    assert after.nodes[0].outputs[1] is None
    assert after.nodes[3].inputs[1] is y
    same_results(before, after)


def test_a_mask_stays_where_the_result_dies() -> None:
    g = Small(4, 5)
    y, mask = g.b.emit(Unary(Function.RELU6), g.x, results=(0, 1))
    loss = g.op(Reduce(Reduction.SUM, 3), y)
    before = g.done(loss, g.op(ApplyMask(), g.constant(4, 5), mask))
    assert kinds(drop_masks(before, ALL, 2)) == kinds(before)  # type: ignore[arg-type]


def test_a_slice_waits_where_the_whole_lives_on() -> None:
    g = Small(4, 5)
    y = g.op(Unary(Function.EXP), g.x)
    part = g.op(Slice(1, 0, 2), y)
    loss = g.op(Reduce(Reduction.SUM, 3), y)
    p = g.b.state("p", np.zeros((5, 5)))
    graph = g.done(loss)
    whole = g.op(LinearWeightGrad(), y, y)
    g.b.emit(SgdUpdate(0.1), p, whole, results=())
    q = g.b.state("q", np.zeros((2, 5)))
    g.b.emit(SgdUpdate(0.1), q, g.op(LinearWeightGrad(), part, y), results=())
    assert kinds(sink_slices(graph)) == [
        "unary",
        "reduce",
        "linear_weight_grad",
        "sgd_update",
        "slice",
        "linear_weight_grad",
        "sgd_update",
    ]
    same_results(graph, sink_slices(graph))


def test_scaled_weights_are_computed_again_for_backward() -> None:
    g = Small(2, 4, 4, 64)
    w, scale = g.b.state("w", g.rng.standard_normal((1, 1, 64, 64))), g.b.state("s", g.rng.standard_normal(64))
    scaled = g.op(Binary(Arithmetic.MUL), w, scale)
    matrix = g.op(Reshape.to((64, 64)), scaled)
    loss = g.op(Reduce(Reduction.SUM, 15), g.op(Linear(), g.x, matrix))
    graph = g.done(loss)
    dx = g.op(LinearInputGrad(), g.x, matrix)
    grad = g.op(LinearWeightGrad(), dx, g.x)
    g.b.emit(SgdUpdate(0.1), w, g.op(Reshape.to((1, 1, 64, 64)), grad), results=())
    after = recompute_parameters(graph)
    assert kinds(after)[:4] == kinds(graph)[:4]
    assert kinds(after)[4:] == ["binary", "reshape", "linear_input_grad", "linear_weight_grad", "reshape", "sgd_update"]
    same_results(graph, after)


def test_what_depends_on_an_input_is_not_computed_again() -> None:
    g = Small(64, 64)
    y = g.op(Binary(Arithmetic.MUL), g.x, g.constant(64))
    graph = g.done(g.op(Reduce(Reduction.SUM, 3), y))
    p = g.b.state("p", np.zeros((64, 64)))
    g.b.emit(SgdUpdate(0.1), p, y, results=())
    assert kinds(recompute_parameters(graph)) == kinds(graph)
