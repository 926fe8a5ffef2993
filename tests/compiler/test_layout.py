"""Moving permutations changes no value: random chains of shape operators, and what is known about reshapes."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.compiler.layout import move_permutes
from edgekit.compiler.permutation import compose, inverse, is_identity, moves_nothing
from edgekit.graph.builder import Builder
from edgekit.graph.interpret import interpret
from edgekit.graph.model import Model
from edgekit.graph.ops.elementwise import Binary, Expand, Reduce, Unary
from edgekit.graph.ops.function import Arithmetic, Function, Reduction
from edgekit.graph.ops.shape import Concat, Permute, Reshape, Slice, Unslice
from edgekit.graph.value import Value


def model_of(build: Builder, outputs: list[Value]) -> Model:
    loss = build(Reduce(Reduction.MEAN, (1 << len(outputs[0].shape)) - 1), outputs[0]) if outputs[0].shape else outputs[0]
    build.graph.outputs = [loss, *outputs]
    return Model(build.graph, list(build.graph.inputs), None, outputs, loss, {}, [])


@st.composite
def splits(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Another shape of as many elements."""
    rest, found = math.prod(shape), []
    while rest > 1 and len(found) < 4:
        found.append(draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
        rest //= found[-1]
    return (*found, rest)


@st.composite
def graphs(draw: st.DrawFn) -> Model:
    """A handful of operators, each on values drawn from those before."""
    build = Builder()
    values = [build.input("x", tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=2, max_size=4))))]
    for _ in range(draw(st.integers(1, 12))):
        x = draw(st.sampled_from(values[-3:]))
        rank = len(x.shape)
        axis = draw(st.integers(0, rank - 1)) if rank else 0
        kinds = [
            "unary",
            "scalar",
            "self",
            "reshape",
            *(["permute"] * 3 + ["reduce", "slice", "unslice", "concat", "row", "expand"]) * (rank > 0),
        ]
        match draw(st.sampled_from(kinds)):
            case "unary":
                y = build(Unary(Function.SIGMOID), x)
            case "scalar":
                y = build(Binary(Arithmetic.SUB), build.constant("c", np.array(0.5)), x)
            case "self":
                others = [v for v in values if v.shape == x.shape]
                y = build(Binary(Arithmetic.MUL), x, draw(st.sampled_from(others)))
            case "reshape":
                y = build(Reshape.to(draw(splits(x.shape))), x)
            case "permute":
                y = build(Permute.of(*draw(st.permutations(range(rank)))), x)
            case "reduce":
                y = build(Reduce(Reduction.MEAN, 1 << axis, draw(st.booleans())), x)
            case "slice":
                start = draw(st.integers(0, x.shape[axis] - 1))
                y = build(Slice(axis, start, x.shape[axis] - start, 1), x)
            case "unslice":
                y = build(Unslice(axis, 1, x.shape[axis] + 2, 1), x)
            case "concat":
                y = build(Concat(axis), x, build(Unary(Function.NEG), x))
            case "row":
                y = build(Binary(Arithmetic.ADD), x, build.constant("row", np.arange(x.shape[-1]) / 3))
            case _:
                column = build(Reduce(Reduction.MAX, 1 << axis, True), x)
                y = build(Expand.to(x.shape), column)
        if y.type.size <= 2000:
            values.append(y)
    return model_of(build, [values[-1], draw(st.sampled_from(values))])


@settings(max_examples=400)
@given(graphs())
def test_values_stay(model: Model) -> None:
    moved = move_permutes(model)
    moved.graph.validate()
    x = {v: np.random.default_rng(0).standard_normal(v.shape) for v in model.inputs}
    before, after = interpret(model.graph, x), interpret(moved.graph, x)
    tiny = 1e-12 * max(1.0, *(np.abs(before[v]).max() for v in model.outputs))
    for a, b in zip([model.loss, *model.outputs], [moved.loss, *moved.outputs], strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(after[b], before[a], rtol=1e-10, atol=tiny)


@given(st.permutations(range(4)), st.permutations(range(4)), st.lists(st.sampled_from([1, 2, 3]), min_size=4, max_size=4))
def test_permutation_arithmetic(outer: list[int], inner: list[int], shape: list[int]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    both = compose(tuple(outer), tuple(inner))
    np.testing.assert_array_equal(x.transpose(both), x.transpose(inner).transpose(outer))
    assert is_identity(compose(inverse(tuple(outer)), tuple(outer)))
    if moves_nothing(tuple(shape), tuple(outer)):
        np.testing.assert_array_equal(x.transpose(outer).ravel(), x.ravel())


def test_a_permutation_of_short_axes_is_a_reshape() -> None:
    build = Builder()
    x = build.input("x", (2, 5, 1, 1))
    moved = move_permutes(model_of(build, [build(Permute.of(0, 2, 3, 1), x)]))
    assert [n.op.name for n in moved.graph.nodes if n.op.name != "reduce"] == ["reshape"]
