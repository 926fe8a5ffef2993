"""A training step cut behind its frozen beginning: both halves together are the whole."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compiler import compile_program, prefix
from edgekit.graph.entry import Role
from edgekit.graph.model import Model
from edgekit.graph.ops.update import SgdUpdate
from edgekit.program import Program
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import Everything, Net, everything, gated, inverted_residuals, residuals, train_only
from tests.support.simulator import Simulator


class Caching(Everything):
    """A backend whose boards have a disk."""

    caches = True


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """These nets are small: what is kept of a sample is not."""
    monkeypatch.setattr(prefix, "_FLOPS_PER_BYTE", 1)


def compiled(model: Model, names: list[str] | None, accumulate: int = 1) -> Program:
    trained = everything(model) if names is None else train_only(model, dict.fromkeys(names))
    entries = make_plan(model, trained, SGD(0.05, 0.9), accumulate=accumulate)
    return compile_program(entries, capability=Caching(), batch=2, accumulate=accumulate)  # type: ignore[arg-type]


def feeds_of(net: Net, model: Model) -> dict[tuple[Role, int], np.ndarray]:
    raw = net.feeds(model)
    return {(Role.INPUT, 0): raw[net.x].astype(np.float32), (Role.TARGET, 0): raw[model.targets]}


NETS = {"inverted residuals": inverted_residuals, "residuals": residuals, "gated": gated}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("trained", [1, 2, 4])
def test_prefix_and_suffix_are_the_whole_step(name: str, trained: int, accumulate: int) -> None:
    net, model = NETS[name]()
    program = compiled(model, [v.name for v in list(model.graph.state)[-trained:]], accumulate)
    whole, halves = Simulator(program), Simulator(program)
    for i in range(3):
        feeds = feeds_of(net, model)
        expected = whole.run("train_step", feeds)[Role.LOSS, 0]
        made = halves.run("prefix", feeds)
        cached = {(Role.CACHED, index): array for (role, index), array in made.items() if role is Role.BOUNDARY}
        np.testing.assert_array_equal(halves.run("suffix", feeds | cached)[Role.LOSS, 0], expected)
        if accumulate == 2 and i % 2:
            for board in (whole, halves):
                board.run("update", {})
    for t in program.states:
        np.testing.assert_array_equal(halves.state(t.name), whole.state(t.name))


def test_each_op_of_the_step_is_in_one_half() -> None:
    _net, model = inverted_residuals()
    program = compiled(model, [list(model.graph.state)[-2].name])
    count = {name: sorted(o.op.name for o in program.entries[name].ops) for name in ("train_step", "prefix", "suffix")}
    assert sorted(count["prefix"] + count["suffix"]) == count["train_step"]
    assert not any(isinstance(o.op, SgdUpdate) for o in program.entries["prefix"].ops)
    assert {p.role for p in program.entries["prefix"].ports} == {Role.INPUT, Role.BOUNDARY}
    assert Role.INPUT not in {p.role for p in program.entries["suffix"].ports}


def test_without_a_frozen_beginning_there_are_no_halves() -> None:
    for make in NETS.values():
        _net, model = make()
        assert set(compiled(model, None).entries) == {"train_step", "evaluate", "predict"}


def test_a_board_without_a_disk_gets_no_halves() -> None:
    _net, model = residuals()
    trained = train_only(model, {list(model.graph.state)[-1].name: None})
    entries = make_plan(model, trained, SGD(0.05))
    assert "prefix" not in compile_program(entries, capability=Everything(), batch=2).entries  # type: ignore[arg-type]


def test_a_prefix_that_is_worth_little_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "_FLOPS_PER_BYTE", 10**6)
    _net, model = inverted_residuals()
    assert "prefix" not in compiled(model, [list(model.graph.state)[-1].name]).entries
