"""A frozen prefix's results kept in a file by the real runner: the same numbers, whatever happens to the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.program import Program
from tests.host.home import wait_for
from tests.runner.make_golden import LOAD, SAVE, START, STATUS, STOP
from tests.runner.process import Runner
from tests.runner.programs import prefixed, sample_data, write_data
from tests.support.disks import small_disk

SAMPLES = 22
HEAD, ROW = 64, 64  #: bytes of the file's head, and of a row: 32 of its head and 8 floats


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_data(tmp_path / "data", *sample_data(SAMPLES))


def trained(runner: Runner, tmp_path: Path, program: Program, data: str, **start: Any) -> tuple[list[float], bytes, Any]:
    """Losses, final state, and what the runner says of the cache."""
    program.save(tmp_path / "p.ekp")
    runner.ask(LOAD, path=str(tmp_path / "p.ekp"))
    begin = runner.ask(STATUS)["next"]
    runner.ask(START, kind="train", data=data, shuffle=True, reset=True, **{"epochs": 4, "seed": 3, **start})
    status = runner.finish()
    assert status["state"] == "done", status
    runner.ask(SAVE, path=str(tmp_path / "c.ekc"))
    return [r[3] for r in runner.records(begin)], (tmp_path / "c.ekc").read_bytes()[128:], status["cache"]


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 1), (1, 1), (3, 2)])
def test_cached_training_is_the_same_to_the_bit(runner: Runner, tmp_path: Path, data: str, batch: int, accumulate: int) -> None:
    program = prefixed(batch, accumulate)
    losses, state, cache = trained(runner, tmp_path, program, data)
    assert cache is None
    file = tmp_path / "cache"
    again = trained(runner, tmp_path, program, data, cache={"storage": "float32", "path": str(file)})
    assert again[:2] == (losses, state)
    used = SAMPLES  # over four epochs in another order each, every sample had its turn
    assert again[2] == {"storage": "float32", "rows": used, "samples": SAMPLES, "bytes": HEAD + used * ROW, "why": ""}
    assert not file.exists(), "it goes with the session"


def test_the_prefix_runs_once_for_each_sample(runner: Runner, tmp_path: Path, data: str) -> None:
    program = prefixed()
    program.save(tmp_path / "p.ekp")
    runner.ask(LOAD, path=str(tmp_path / "p.ekp"))
    cache = {"storage": "float32", "path": str(tmp_path / "cache")}
    for epochs, runs in ((1, 5), (6, 5)):  # 22 samples are 5 batches of 4
        runner.ask(START, kind="train", data=data, epochs=epochs, shuffle=False, seed=0, profile=True, reset=True, cache=cache)
        assert runner.finish()["state"] == "done"
        first = program.entries["prefix"].first_op
        assert runner.profile()["ops"][first][1] == runs


@pytest.mark.parametrize(("storage", "row"), [("float16", 64), ("int8", 64)])
def test_fewer_bits_train_about_the_same(runner: Runner, tmp_path: Path, data: str, storage: str, row: int) -> None:
    losses, _, cache = trained(runner, tmp_path, prefixed(), data, cache={"storage": storage, "path": str(tmp_path / "c")})
    plain, *_ = trained(runner, tmp_path, prefixed(), data)
    assert cache["bytes"] == HEAD + SAMPLES * row
    assert losses != plain
    np.testing.assert_allclose(losses, plain, rtol=2e-3 if storage == "float16" else 2e-2)


def leave(runner: Runner, tmp_path: Path, program: Program, data: str, file: Path) -> None:
    """A cache's file as a cut leaves it, with a row for each sample of whole batches."""
    program.save(tmp_path / "p.ekp")
    runner.ask(LOAD, path=str(tmp_path / "p.ekp"))
    cache = {"storage": "float32", "path": str(file)}
    runner.ask(START, kind="train", data=data, epochs=10**6, shuffle=False, seed=0, reset=True, cache=cache)
    wait_for(lambda: runner.ask(STATUS)["cache"]["rows"] == 20)
    os.link(file, tmp_path / "link")
    runner.ask(STOP)
    assert runner.finish()["state"] == "stopped"
    (tmp_path / "link").rename(file)


def test_another_programs_file_is_not_used(runner: Runner, tmp_path: Path, data: str) -> None:
    file = tmp_path / "cache"
    leave(runner, tmp_path, prefixed(), data, file)
    plain = trained(runner, tmp_path, prefixed(seed=5), data)
    cache = {"storage": "float32", "path": str(file)}
    assert trained(runner, tmp_path, prefixed(seed=5), data, cache=cache)[:2] == plain[:2]


@pytest.mark.parametrize("changed", [0, 1, SAMPLES])
def test_rows_of_samples_that_changed_are_made_anew(runner: Runner, tmp_path: Path, data: str, changed: int) -> None:
    file = tmp_path / "cache"
    leave(runner, tmp_path, prefixed(), data, file)
    inputs, targets = sample_data(SAMPLES)
    inputs[:changed] += 1
    write_data(tmp_path / "data", inputs, targets)
    plain = trained(runner, tmp_path, prefixed(), data)
    losses, state, said = trained(runner, tmp_path, prefixed(), data, cache={"storage": "float32", "path": str(file)})
    assert (losses, state) == plain[:2]
    remade = SAMPLES - 20 + min(changed, 20)
    assert said["bytes"] == HEAD + (20 + remade) * ROW, "what fits is used, what does not comes once more"


def test_too_small_a_budget_says_so_and_trains_without(runner: Runner, tmp_path: Path, data: str) -> None:
    plain = trained(runner, tmp_path, prefixed(), data)
    size = HEAD + SAMPLES * ROW
    for budget, rows in ((size - 1, 0), (size, SAMPLES)):
        cache = {"storage": "float32", "path": str(tmp_path / "c"), "budget": budget}
        losses, state, said = trained(runner, tmp_path, prefixed(), data, cache=cache)
        assert (losses, state) == plain[:2]
        assert said["rows"] == rows
        assert said["why"] == ("" if rows else f"it would take {size} bytes, the budget is {size - 1}")
        assert not (tmp_path / "c").exists()


def test_where_it_cannot_be_written_training_goes_on_without(runner: Runner, tmp_path: Path, data: str) -> None:
    plain = trained(runner, tmp_path, prefixed(), data)
    for path in (tmp_path / "no folder" / "c", tmp_path):
        losses, state, said = trained(runner, tmp_path, prefixed(), data, cache={"storage": "float32", "path": str(path)})
        assert (losses, state) == plain[:2]
        assert said["rows"] == 0
        assert str(path) in said["why"]


def test_a_disk_that_fills_up_stops_the_file_and_not_the_training(runner: Runner, tmp_path: Path) -> None:
    samples = 16_000
    data = write_data(tmp_path / "data", *sample_data(samples))
    plain = trained(runner, tmp_path, prefixed(), data, epochs=2)
    with small_disk(tmp_path / "disk", 1200):
        cache = {"storage": "float32", "path": str(tmp_path / "disk" / "c"), "budget": 2**40}
        start = {"kind": "train", "data": data, "epochs": 2, "shuffle": True, "seed": 3, "reset": True, "cache": cache}
        begin = runner.ask(START, **start)["next"]
        (tmp_path / "disk" / "other").write_bytes(bytes(900 << 10))
        status = runner.finish()
        runner.ask(SAVE, path=str(tmp_path / "c.ekc"))
    assert status["state"] == "done"
    assert ([r[3] for r in runner.records(begin + 8000 - 4096)], (tmp_path / "c.ekc").read_bytes()[128:]) == (plain[0], plain[1])
    assert 0 < status["cache"]["rows"] < samples
    assert "No space left" in status["cache"]["why"]


def test_a_program_without_a_prefix_says_so(loaded: Runner, data: str) -> None:
    loaded.ask(START, kind="train", data=data, epochs=2, shuffle=False, seed=0, cache={"storage": "float32", "path": "/x"})
    assert loaded.finish()["cache"]["why"] == "the program has no frozen prefix"


def test_a_bad_sample_is_named_before_half_an_update(runner: Runner, tmp_path: Path) -> None:
    inputs, targets = sample_data(8)
    inputs[6, 1] = np.nan
    data = write_data(tmp_path / "data", inputs, targets)
    prefixed(4, 2).save(tmp_path / "p.ekp")
    runner.ask(LOAD, path=str(tmp_path / "p.ekp"))
    cache = {"storage": "float32", "path": str(tmp_path / "c")}
    runner.ask(START, kind="train", data=data, epochs=1, shuffle=False, seed=0, cache=cache)
    status = runner.finish()
    assert status["state"] == "failed"
    assert status["why"] == "inputs.npy: sample 6 holds NaN or infinity"
    assert status["step"] == 0
