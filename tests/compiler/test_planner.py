"""The memory plan: nothing that lives at the same time overlaps, and little is wasted."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from edgekit.backends.cpu.capability import CPU
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.compiler import compile_program
from edgekit.compiler.compile import lay_out, lower
from edgekit.compiler.lifetimes import Buffer, buffers, lower_bound
from edgekit.compiler.planner import peak, place, plan_memory
from edgekit.compiler.rewrite import roots
from edgekit.graph.builder import Builder
from edgekit.graph.graph import Graph
from edgekit.graph.model import Model, Trainable
from edgekit.graph.ops.elementwise import Binary, Unary
from edgekit.graph.ops.function import Arithmetic, Function
from edgekit.graph.ops.linear import Linear
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.value import Value
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import Net, everything, mcunet, mobilenet_v2, resnet18, train_only


@st.composite
def lives(draw: st.DrawFn) -> list[Buffer]:
    made = []
    for _ in range(draw(st.integers(1, 40))):
        start = draw(st.integers(-1, 30))
        made.append(Buffer((), 64 * draw(st.integers(1, 50)), start, draw(st.integers(start, 31))))
    return made


@given(lives())
def test_no_two_live_buffers_overlap(pieces: list[Buffer]) -> None:
    bound = lower_bound(pieces, 31)
    offsets = place(pieces, bound)
    assert peak(pieces, offsets) >= bound
    assert all(at % 64 == 0 for at in offsets)
    for i, (a, at) in enumerate(zip(pieces, offsets, strict=True)):
        for b, other in zip(pieces[:i], offsets[:i], strict=True):
            together = a.start <= b.end and b.start <= a.end
            assert not together or at + a.nbytes <= other or other + b.nbytes <= at


@given(lives())
def test_the_bound_is_what_lives_at_the_worst_moment(pieces: list[Buffer]) -> None:
    worst = max(sum(b.nbytes for b in pieces if b.start <= t <= b.end) for t in range(-1, 32))
    assert lower_bound(pieces, 31) == worst


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random chains of elementwise ops, views and products over [4, 4] arrays, in random sharing."""
    b = Builder()
    square = [b.input("x", (4, 4)), b.input("z", (4, 4))]
    for _ in range(draw(st.integers(1, 25))):
        first, second = draw(st.sampled_from(square)), draw(st.sampled_from(square))
        kind = draw(st.sampled_from(["unary", "binary", "view", "product"]))
        if kind == "unary":
            square.append(b(Unary(Function.NEG), first))
        elif kind == "binary":
            square.append(b(Binary(Arithmetic.ADD), first, second))
        elif kind == "product":
            square.append(b(Linear(), first, second, None, draw(st.sampled_from(square))))
        else:
            square.append(b(Reshape.to((4, 4)), b(Reshape.to((16,)), first)))
    b.graph.outputs = draw(st.lists(st.sampled_from(square), min_size=1, max_size=3))
    return b.graph


@settings(max_examples=200)
@given(graphs())
def test_no_value_is_overwritten_before_its_last_reader(graph: Graph) -> None:
    """Walk the plan: every read finds at its place what was written there last."""
    placement = plan_memory(graph).placement
    root = roots(graph)
    holds: dict[int, Value] = {placement.offsets[v]: v for v in graph.inputs}

    def find(v: Value) -> None:
        v = root.get(v, v)
        assert holds[placement.offsets[v]] is v

    for node in graph.nodes:
        if isinstance(node.op, Reshape):
            continue
        for v in node.reads:
            find(v)
        for v in node.writes:
            holds[placement.offsets[v]] = v
    for v in graph.outputs:
        find(v)


def test_a_product_is_not_made_in_place_of_what_it_still_reads() -> None:
    b = Builder()
    x = b.input("x", (4, 4))
    y = b(Linear(), x, b.constant("w", __import__("numpy").eye(4)), None, x)
    b.graph.outputs = [y]
    assert len(buffers(b.graph)) == 2


def test_elementwise_chains_take_one_buffer() -> None:
    b = Builder()
    y = b.input("x", (4, 4))
    for _ in range(5):
        y = b(Unary(Function.NEG), y)
    b.graph.outputs = [y]
    assert len(buffers(b.graph)) == 1


def last(model: Model, count: int) -> list[Trainable]:
    return train_only(model, {v.name: None for v in list(model.graph.state)[-count:]})


@pytest.mark.parametrize("make", [mobilenet_v2, resnet18, mcunet])
@pytest.mark.parametrize("scheme", [everything, lambda m: last(m, 36)], ids=["full", "last"])
def test_planned_within_a_twentieth_of_the_bound(
    make: Callable[[], tuple[Net, Model]], scheme: Callable[[Model], list[Trainable]]
) -> None:
    _net, model = make()
    for name, entry in make_plan(model, scheme(model), SGD(0.1, 0.9)).items():
        memory = lay_out(lower(entry, CPU), CPU).memory
        assert memory.placement.arena_bytes <= 1.05 * memory.lower_bound, name


def test_the_last_blocks_need_a_fraction_of_the_whole() -> None:
    arenas = []
    for scheme in (everything, lambda m: last(m, 36)):
        _net, model = mobilenet_v2()
        entries = make_plan(model, scheme(model), SGD(0.1, 0.9))
        arenas.append(lay_out(lower(entries["train_step"], CPU), CPU, recompute=0).memory.placement.arena_bytes)
    assert arenas[1] < arenas[0] / 3


def test_compiling_mobilenet_v2_takes_seconds() -> None:
    _net, model = mobilenet_v2()
    started = time.perf_counter()
    compile_program(make_plan(model, everything(model), SGD(0.1, 0.9)), capability=CPU, batch=8)
    assert time.perf_counter() - started < 5
