"""Training, evaluation and prediction by the real runner, against NumPy in float64."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.protocol.status import Status
from tests.runner.make_golden import LIMITS, LOAD, METRICS, RECORDS, SAVE, SENSORS, START, STATUS, STOP
from tests.runner.process import Runner
from tests.runner.programs import IGNORED, Classifier, sample_data, shuffled, softmax, write_data

CHECKPOINT_HEAD = 128


def state_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """w and b of the classifier's checkpoint: the first states, each on a multiple of 64 bytes."""
    state = np.frombuffer(path.read_bytes()[CHECKPOINT_HEAD:], np.float32)
    return state[:12].reshape(3, 4), state[16:20]


def batches(order: list[int], size: int) -> list[list[int]]:
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


@pytest.mark.parametrize(("batch", "accumulate", "shuffle"), [(4, 1, False), (4, 1, True), (4, 3, True), (1, 1, True)])
def test_training_is_the_same_as_in_numpy(runner: Runner, tmp_path: Path, batch: int, accumulate: int, shuffle: bool) -> None:
    classifier = Classifier(batch=batch, accumulate=accumulate, lr=0.05)
    classifier.program().save(tmp_path / "m.ekp")
    inputs, targets = sample_data(41)
    data = write_data(tmp_path / "data", inputs, targets)
    runner.ask(LOAD, path=str(tmp_path / "m.ekp"))
    size = batch * accumulate
    started = runner.ask(START, kind="train", data=data, epochs=3, shuffle=shuffle, seed=7)
    steps = 3 * (41 // size)
    assert started == {"id": 1, "steps": steps, "samples": 41, "dropped": 41 % size, "next": 0}
    numbers = {"id": 1, "step": steps, "steps": steps, "next": steps, "rc": 0}
    assert runner.finish() == {"state": "done", "why": "", "session": None, "cache": None} | numbers

    orders = [shuffled(41, 7, epoch) if shuffle else list(range(41)) for epoch in range(3)]
    losses, w, b = classifier.train(inputs, targets, [samples for order in orders for samples in batches(order, size)])
    records = runner.records()
    assert [r[0] for r in records] == list(range(steps))
    assert [r[1] for r in records] == list(range(1, steps + 1))
    assert [r[2] for r in records] == sorted(i for i in range(3) for _ in range(41 // size))
    np.testing.assert_allclose([r[3] for r in records], losses, rtol=1e-5)
    runner.ask(SAVE, path=str(tmp_path / "c.ekc"))
    trained_w, trained_b = state_of(tmp_path / "c.ekc")
    np.testing.assert_allclose(trained_w, w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained_b, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_run_has_its_own_dropout(runner: Runner, tmp_path: Path, accumulate: int) -> None:
    classifier = Classifier(accumulate=accumulate, dropout=0.4, lr=0.05)
    classifier.program().save(tmp_path / "m.ekp")
    inputs, targets = sample_data(24)
    data = write_data(tmp_path / "data", inputs, targets)
    runner.ask(LOAD, path=str(tmp_path / "m.ekp"))
    seed = 0xFFFFFFFE  # all 32 bits
    checkpoint = str(tmp_path / "c.ekc")
    runner.session("train", data, epochs=2, seed=seed, steps=4, checkpoint=checkpoint)
    runner.session("train", data, epochs=2, seed=1, resume=checkpoint)  # the checkpoint's seed counts
    order = batches(list(range(24)), 4 * accumulate) * 2
    losses, _, _ = classifier.train(inputs, targets, order, seed)
    np.testing.assert_allclose([r[3] for r in runner.records()], losses, rtol=1e-5)


def test_records_tell_the_times_and_the_sensors(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(8))
    (tmp_path / "t").write_text("-1500\n")
    (tmp_path / "f").write_text("50005\n")
    (tmp_path / "p").write_text("much\n")
    paths = {"temperature": str(tmp_path / "t"), "throttled": str(tmp_path / "f"), "power": str(tmp_path / "p")}
    loaded.ask(SENSORS, **paths, clock="/nowhere")
    before = time.monotonic_ns()
    loaded.session("train", data)
    after = time.monotonic_ns()
    records = loaded.records()
    assert len(records) == 2
    for _, _, _, _, step, load, compute, update, at, temperature, clock, throttled, power, rss in records:
        assert step == load + compute + update
        assert 0 < update < step
        assert before < at < after
        assert (temperature, clock, throttled, power) == (-1500, None, 0x50005, None)
        assert 100_000 < rss < 100_000_000
    loaded.ask(SENSORS)
    loaded.session("train", data)
    assert [r[9:13] for r in loaded.records(2)] == [[None] * 4] * 2


def test_every_record_comes_exactly_once(loaded: Runner, tmp_path: Path) -> None:
    """Read while it trains, in small pieces, with repeated questions: what is gone is told, nothing comes twice."""
    data = write_data(tmp_path / "data", *sample_data(4 * 1000))
    loaded.ask(START, kind="train", data=data, epochs=6, shuffle=True, seed=1)
    seen: list[int] = []
    gone = cursor = 0
    while True:
        part = loaded.ask(RECORDS, since=cursor, max=50)
        assert part == loaded.ask(RECORDS, since=cursor, max=50) or part["state"] == "running"
        gone += part["first"] - cursor
        assert [r[0] for r in part["records"]] == list(range(part["first"], part["next"]))
        seen += [r[0] for r in part["records"]]
        cursor = part["next"]
        if part["state"] == "done" and not part["records"]:
            break
    assert len(seen) == len(set(seen)) == 6000 - gone
    assert cursor == 6000


def test_the_ring_keeps_the_last_4096(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(4 * 5000))
    loaded.session("train", data)
    part = loaded.ask(RECORDS, since=0, max=1)
    assert part["first"] == 5000 - 4096
    assert [r[:2] for r in loaded.records()] == [[i, i + 1] for i in range(5000 - 4096, 5000)]


def test_cursors_go_on_from_session_to_session(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(8))
    loaded.session("train", data)
    started = loaded.ask(START, kind="train", data=data, epochs=1, shuffle=False, seed=0)
    assert (started["id"], started["next"]) == (2, 2)
    loaded.finish()
    assert [r[1] for r in loaded.records(2)] == [1, 2]


def test_parameters_stay_unless_reset(loaded: Runner, tmp_path: Path) -> None:
    inputs, targets = sample_data(8)
    data = write_data(tmp_path / "data", inputs, targets)
    for reset in (False, False, True):
        loaded.session("train", data, reset=reset)
    losses = [r[3] for r in loaded.records()]
    twice, _, _ = Classifier().train(inputs, targets, [[0, 1, 2, 3], [4, 5, 6, 7]] * 2)
    np.testing.assert_allclose(losses[:4], twice, rtol=1e-5)
    assert losses[4:] == losses[:2]


@pytest.mark.parametrize("samples", [1, 4, 7, 12])
def test_evaluation_counts_every_sample_once(loaded: Runner, tmp_path: Path, samples: int) -> None:
    inputs, targets = sample_data(samples)
    data = write_data(tmp_path / "data", inputs, targets)
    assert loaded.session("evaluate", data)["steps"] == (samples + 3) // 4
    w, b = Classifier().weights()
    scores = inputs.astype(np.float64) @ w + b
    loss = -np.log(softmax(scores)[np.arange(samples), targets]).mean()
    metrics = loaded.metrics()
    assert metrics.pop("loss") == pytest.approx(loss, rel=1e-5)
    assert metrics == {"correct": int((scores.argmax(1) == targets).sum()), "counted": samples, "samples": samples}
    assert loaded.records() == []


def test_evaluation_leaves_ignored_targets_out(loaded: Runner, tmp_path: Path) -> None:
    inputs, targets = sample_data(11)
    targets[[0, 4, 5, 6, 7, 8]] = IGNORED  # a whole batch, and the first sample of the last one
    data = write_data(tmp_path / "data", inputs, targets)
    loaded.session("evaluate", data)
    kept = targets != IGNORED
    w, b = Classifier().weights()
    scores = inputs[kept].astype(np.float64) @ w + b
    loss = -np.log(softmax(scores)[np.arange(kept.sum()), targets[kept]]).mean()
    metrics = loaded.metrics()
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert (metrics["counted"], metrics["samples"]) == (kept.sum(), 11)


def test_prediction_writes_every_sample_once(loaded: Runner, tmp_path: Path) -> None:
    inputs, _ = sample_data(11)
    data = write_data(tmp_path / "data", inputs)
    loaded.session("predict", data, out=str(tmp_path / "out.npy"))
    w, b = Classifier().weights()
    outputs = np.load(tmp_path / "out.npy")
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, inputs @ w + b, rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "out.npy.tmp").exists()


def test_training_goes_on_where_it_was_stopped_bit_by_bit(new_runner: Callable[..., Runner], model: str, tmp_path: Path) -> None:
    """A run of 4 epochs; the same in pieces, each by a new process from the last one's checkpoint."""
    data = write_data(tmp_path / "data", *sample_data(30))
    request = {"kind": "train", "data": data, "epochs": 4, "shuffle": True, "seed": 3}
    whole = new_runner()
    whole.ask(LOAD, path=model)
    whole.session(**request, checkpoint=str(tmp_path / "whole.ekc"))
    losses: list[float] = []
    pieces = str(tmp_path / "pieces.ekc")
    for steps in (3, 1, 10, 14):  # 7 steps an epoch: inside epochs and at their ends
        runner = new_runner()
        runner.ask(LOAD, path=model)
        resume = {"resume": pieces} if losses else {}
        status = runner.session(**request, **resume, checkpoint=pieces, steps=steps)
        rows = runner.records()
        assert [r[1] for r in rows] == list(range(len(losses) + 1, len(losses) + steps + 1))
        assert status["step"] == status["steps"] == len(losses) + steps
        losses += [r[3] for r in rows]
    assert losses == [r[3] for r in whole.records()]
    assert (tmp_path / "whole.ekc").read_bytes() == (tmp_path / "pieces.ekc").read_bytes()
    assert whole.session(**request, resume=pieces)["step"] == 28  # nothing is left to do


def test_state_takes_the_parameters_alone(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(8))
    saved = str(tmp_path / "c.ekc")
    loaded.session("train", data, checkpoint=saved, seed=5)
    loaded.session("evaluate", data)
    trained = loaded.metrics()["loss"]
    loaded.session("evaluate", data, reset=True)
    assert loaded.metrics()["loss"] != trained
    loaded.session("evaluate", data, state=saved)
    assert loaded.metrics()["loss"] == trained
    loaded.session("train", data, state=saved)
    assert [r[1] for r in loaded.records(2)] == [1, 2]


def test_stop_ends_the_session_between_two_steps(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(400))
    path = str(tmp_path / "stopped.ekc")
    loaded.ask(START, kind="train", data=data, epochs=1_000_000, shuffle=True, seed=0, checkpoint=path)
    assert loaded.ask(STATUS)["state"] == "running"
    loaded.fails(Status.BUSY, LOAD, path=data)
    loaded.fails(Status.BUSY, START, kind="evaluate", data=data)
    loaded.ask(SAVE, path=str(tmp_path / "during.ekc"))
    loaded.ask(STOP)
    status = loaded.finish()
    assert status["state"] == "stopped"
    assert 0 < status["step"] < status["steps"] == 100_000_000
    loaded.ask(SAVE, path=str(tmp_path / "after.ekc"))
    assert (tmp_path / "after.ekc").read_bytes() == (tmp_path / "stopped.ekc").read_bytes()
    assert loaded.session("train", data, resume=path, epochs=1_000_000, steps=5)["step"] == status["step"] + 5


def test_a_stopped_prediction_leaves_no_file(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", sample_data(400_000)[0])
    loaded.ask(START, kind="predict", data=data, out=str(tmp_path / "out.npy"))
    loaded.ask(STOP)
    assert loaded.finish()["state"] == "stopped"
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_a_loss_that_is_no_number_ends_the_training(runner: Runner, tmp_path: Path) -> None:
    Classifier(lr=1e38).program().save(tmp_path / "m.ekp")
    data = write_data(tmp_path / "data", *sample_data(80))
    runner.ask(LOAD, path=str(tmp_path / "m.ekp"))
    checkpoint = tmp_path / "c.ekc"
    runner.ask(START, kind="train", data=data, epochs=5, shuffle=False, seed=0, checkpoint=str(checkpoint))
    status = runner.finish()
    assert (status["state"], status["rc"]) == ("failed", Status.DIVERGED)
    assert f"at step {status['step']}" in status["why"]
    assert "learning rate" in status["why"]
    assert not np.isfinite(runner.records()[-1][3])
    assert not checkpoint.exists()
    runner.session("evaluate", data, reset=True)  # the runner lives on


def test_after_a_divergence_the_accumulated_gradients_are_zero(runner: Runner, tmp_path: Path) -> None:
    program = Classifier(lr=1e38, accumulate=3).program()
    program.save(tmp_path / "m.ekp")
    data = write_data(tmp_path / "data", *sample_data(80))
    runner.ask(LOAD, path=str(tmp_path / "m.ekp"))
    runner.ask(START, kind="train", data=data, epochs=5, shuffle=False, seed=0)
    assert runner.finish()["rc"] == Status.DIVERGED
    runner.ask(SAVE, path=str(tmp_path / "c.ekc"))
    assert not np.isfinite(state_of(tmp_path / "c.ekc")[0]).all()
    state = (tmp_path / "c.ekc").read_bytes()[CHECKPOINT_HEAD:]
    for name, count in (("w.gradient", 12), ("b.gradient", 4)):
        at = program.tensor(name).offset
        np.testing.assert_array_equal(np.frombuffer(state[at : at + 4 * count], np.float32), 0)


def test_profile_counts_every_op(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(40))
    loaded.session("train", data, profile=True)
    profile = loaded.profile()
    assert profile["total"] == len(profile["ops"]) == profile["next"]
    runs = [n for _, n, _ in profile["ops"]]
    assert set(runs) == {0, 10}  # train_step's ops, and those of the other entries
    assert all((ns > 0) == (n > 0) for _, n, ns in profile["ops"])
    loaded.session("train", data)
    assert loaded.profile() == profile  # of the last session that was profiled
    assert loaded.profile(since=3)["ops"] == profile["ops"][3:]


def test_limits_are_measured_when_nothing_runs(loaded: Runner, tmp_path: Path) -> None:
    limits = loaded.ask(LIMITS)
    sizes, speeds = zip(*limits["bandwidth"], strict=True)
    assert limits["flops"] > 1e8
    assert sizes == tuple(2**n for n in range(18, 27))
    assert min(speeds) > 1e7
    data = write_data(tmp_path / "data", *sample_data(40))
    loaded.ask(START, kind="train", data=data, epochs=10**6, shuffle=False, seed=0)
    loaded.fails(Status.BUSY, LIMITS)


def test_another_program_replaces_the_first(loaded: Runner, model: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(40))
    loaded.session("evaluate", data, profile=True)
    first = loaded.metrics()
    Classifier(batch=8, seed=5).program().save(tmp_path / "b.ekp")
    answer = loaded.ask(LOAD, path=str(tmp_path / "b.ekp"))
    assert set(answer) == {"sha", "arena", "state", "constants", "scratch", "prepared"}
    assert answer["sha"] == Classifier(batch=8, seed=5).program().sha256
    loaded.fails(Status.NO_SESSION, METRICS)
    assert loaded.ask(STATUS)["state"] == "idle"
    loaded.session("evaluate", data)
    assert loaded.metrics()["loss"] != first["loss"]
    loaded.ask(LOAD, path=model)
    loaded.session("evaluate", data)
    assert loaded.metrics() == first


def test_metrics_of_one_session_are_not_given_for_another(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(40))
    mine = loaded.ask(START, kind="evaluate", data=data)["id"]
    loaded.finish()
    assert loaded.ask(METRICS, id=mine) == loaded.metrics()
    loaded.session("train", data)
    assert loaded.ask(METRICS, id=mine) == loaded.metrics()
    assert "or another one since then" in loaded.fails(Status.NO_SESSION, METRICS, id=mine + 1)
    loaded.session("evaluate", data)
    loaded.fails(Status.NO_SESSION, METRICS, id=mine)


def test_replaced_programs_and_ended_sessions_keep_nothing(loaded: Runner, model: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(40_000))
    maps = Path(f"/proc/{loaded.process.pid}/maps")

    def once() -> tuple[int, int]:
        loaded.ask(LOAD, path=model)
        loaded.session("train", data, shuffle=True, profile=True, steps=3)
        lines = maps.read_text().splitlines()
        return sum(model in line for line in lines), len(lines)

    mapped, before = once()
    assert mapped == 1
    assert not any(data in line for line in maps.read_text().splitlines())
    for _ in range(20):
        mapped, after = once()
    assert (mapped, after) == (1, before)


def test_a_failed_load_leaves_the_old_program(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(8))
    (tmp_path / "bad.ekp").write_bytes(b"nonsense")
    loaded.fails(Status.BAD_PROGRAM, LOAD, path=str(tmp_path / "bad.ekp"))
    loaded.session("train", data)
