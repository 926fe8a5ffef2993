"""Reports, listings and pictures of a Program."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from edgekit.backends.cpu.capability import CPU

from edgekit.compiler import compile_program
from edgekit.errors import StorageError
from edgekit.program import Program
from edgekit.program.inspect import disassemble, inspect, plot
from edgekit.training.optimizers import SGD
from edgekit.training.plan import make_plan
from tests.support.graphs import everything, inverted_residuals, residuals, train_only


@pytest.fixture(scope="module")
def program() -> Program:
    _net, model = residuals()
    trained = train_only(model, {"conv2.weight": 2, "conv2.bias": None, "linear7.weight": None})
    optimizer = SGD(0.1, 0.9)
    metadata = {
        "model": "tiny",
        "board": "local",
        "update": {"spec": "mine", "notes": ["a note"]},
        "optimizer": dataclasses.asdict(optimizer),
        "bindings": [t.binding.to_json() for t in trained],
    }
    return compile_program(make_plan(model, trained, optimizer), capability=CPU, batch=2, metadata=metadata)


def test_what_is_updated(program: Program) -> None:
    report = inspect(program)
    parts = {u.value: u for u in report.updated}
    assert parts["conv2.weight"].updated_shape == (3, 3, 2, 8)
    assert parts["conv2.weight"].updated_bytes * 4 == parts["conv2.weight"].bytes
    assert report.updated_bytes == 4 * (3 * 3 * 2 * 8 + 8 + 16 * 5)
    assert sorted(program.updated_parameters()) == ["conv2.bias", "conv2.weight", "linear7.weight"]
    assert report.optimizer_bytes == report.updated_bytes, "one velocity for each updated element"


def test_flops_are_split(program: Program) -> None:
    step = next(e for e in inspect(program).entries if e.name == "train_step")
    predict = next(e for e in inspect(program).entries if e.name == "predict")
    assert set(step.flops) == {"forward", "backward", "update"}
    assert set(predict.flops) == {"forward"}
    first = 2 * 2 * 9 * 9 * 8 * 3 * 3 * 3  # a multiply-add is two: batch 2, 9×9 pixels, 8 channels, 3×3×3 taps
    assert step.flops["forward"] > first
    assert next(o for o in predict.ops if o.name == "conv2d").flops >= first


def test_memory_by_purpose_sums_to_the_bound_that_the_planner_had(program: Program) -> None:
    for e in inspect(program).entries:
        assert e.lower_bound == program.metadata["memory"][e.name]["lower_bound"], e.name
        assert sum(e.peak.values()) == e.lower_bound
        assert e.lower_bound <= e.arena_bytes


@pytest.mark.parametrize("make", [inverted_residuals, residuals])
def test_the_timeline_agrees_with_the_planner_for_full_training(make: object) -> None:
    _net, model = make()  # type: ignore[operator]
    program = compile_program(make_plan(model, everything(model), SGD(0.1)), capability=CPU)
    step = inspect(program).entries[0]
    assert step.lower_bound == program.metadata["memory"]["train_step"]["lower_bound"]
    assert {"saved activations", "gradients", "parameter gradients"} <= set(step.timeline.by_purpose)


def test_json_and_text(program: Program) -> None:
    report = inspect(program)
    again = json.loads(json.dumps(report.to_json()))
    assert again["updated_bytes"] == report.updated_bytes
    text = program.summary()
    for expected in ("tiny for local", "mine", "a note", "lr 0.1", "lower bound", "activations", "train_step"):
        assert expected in text


def test_the_listing_names_every_op(program: Program) -> None:
    text = disassemble(program)
    assert text.count("\n") + 1 == len(program.ops) + sum(1 + len(e.ports) for e in program.entries.values())
    assert "port target: %targets:i32[2]" in text
    assert "in 0…4 or -100" in text
    assert "sgd_update($conv2.weight:f32[3,3,8,8]" in text


def test_the_picture(program: Program, tmp_path: Path) -> None:
    plot(program, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StorageError):
        plot(program, tmp_path / "nowhere" / "memory.png")


def test_a_program_without_notes_can_be_inspected(program: Program) -> None:
    bare = dataclasses.replace(program, metadata={})
    report = inspect(bare)
    assert report.updated_bytes == inspect(program).updated_bytes
    assert disassemble(bare)
