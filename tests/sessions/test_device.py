"""Training, evaluating and predicting through the public interface, on the real runner, against NumPy."""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import (
    DataError,
    DeviceError,
    DivergedError,
    InputError,
    IntegrityError,
    LinkError,
    StorageError,
)
from edgekit.program import Architecture, Backend, Program
from edgekit.protocol import StartRequest
from edgekit.sessions import Device, Session, connect
from edgekit.sessions.bench import Limits
from edgekit.sessions.data import check_data
from edgekit.telemetry import read_run
from tests.runner.programs import Classifier, sample_data, shuffled, softmax

SAMPLES, BATCH = 22, 4
LONG = 200_000  #: epochs that no test waits for


def data(samples: int = SAMPLES) -> dict[str, Any]:
    inputs, targets = sample_data(samples)
    return {"inputs": inputs, "targets": targets}


def batches(epochs: int, seed: int | None, samples: int = SAMPLES) -> list[list[int]]:
    steps = samples // BATCH
    orders = [list(range(samples)) if seed is None else shuffled(samples, seed, epoch) for epoch in range(epochs)]
    return [order[i * BATCH : (i + 1) * BATCH] for order in orders for i in range(steps)]


def metrics(w: Any, b: Any, samples: dict[str, Any]) -> tuple[float, float]:
    scores = softmax(samples["inputs"].astype(np.float64) @ w + b)
    rows = np.arange(len(scores))
    return -np.log(scores[rows, samples["targets"]]).mean(), (scores.argmax(1) == samples["targets"]).mean()


@pytest.mark.parametrize("seed", [None, 0, 3])
def test_training_follows_numpy(seed: int | None, device: Device, classifier: Classifier, program: Program) -> None:
    d = data()
    session = device.train(program, d, epochs=3, shuffle=seed is not None, seed=seed or 0)
    records = list(session)
    losses, w, b = classifier.train(d["inputs"], d["targets"], batches(3, seed))
    assert [r.step for r in records] == list(range(1, 16))
    assert [r.epoch for r in records] == [0] * 5 + [1] * 5 + [2] * 5
    np.testing.assert_allclose([r.loss for r in records], losses, rtol=1e-5)
    np.testing.assert_allclose(session.state()["w"], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(session.state()["b"], b, rtol=1e-4, atol=1e-6)
    assert {r.arena_bytes for r in records} == {program.entries["train_step"].arena_bytes}
    assert all(r.step_ns >= r.compute_ns > 0 for r in records)
    assert all(a.time_ns < b.time_ns for a, b in itertools.pairwise(records))
    assert session.dropped == SAMPLES % BATCH


def test_evaluation_and_prediction_use_what_was_trained(device: Device, classifier: Classifier, program: Program) -> None:
    d = data()
    before = device.evaluate(program, d)
    np.testing.assert_allclose(before.loss, metrics(*classifier.weights(), d)[0], rtol=1e-5)
    device.train(program, d, epochs=2, shuffle=False)  # not waited for: evaluation does that
    after = device.evaluate(program, d)
    _, w, b = classifier.train(d["inputs"], d["targets"], batches(2, None))
    loss, accuracy = metrics(w, b, d)
    assert after.loss is not None
    np.testing.assert_allclose([after.loss, after.accuracy], [loss, accuracy], rtol=1e-5)
    assert after.samples == SAMPLES
    np.testing.assert_allclose(device.predict(program, d["inputs"]), d["inputs"] @ w + b, rtol=1e-4, atol=1e-5)


def test_training_goes_on_and_starts_anew_on_request(device: Device, classifier: Classifier, program: Program) -> None:
    d = data(8)
    losses, _, _ = classifier.train(d["inputs"], d["targets"], batches(4, None, 8))
    first = [r.loss for r in device.train(program, d, epochs=2, shuffle=False)]
    second = [r.loss for r in device.train(program, d, epochs=2, shuffle=False)]
    np.testing.assert_allclose(first + second, losses, rtol=1e-5)
    again = [r.loss for r in device.train(program, d, epochs=2, shuffle=False, reset=True)]
    assert again == first


def test_each_program_keeps_what_it_learned(device: Device, program: Program) -> None:
    other = Classifier(seed=5).program()
    d = data()
    device.train(program, d, epochs=5).result()
    trained = device.evaluate(program, d)
    untouched = device.evaluate(other, d)
    assert untouched != trained
    device.train(other, d, epochs=1).result()
    device.bench(program, steps=3)
    assert device.evaluate(program, d) == trained
    assert device.evaluate(other, d) != untouched


def test_a_checkpoint_can_be_evaluated_and_gone_on_from(device: Device, classifier: Classifier, program: Program) -> None:
    d = data()
    losses, _, _ = classifier.train(d["inputs"], d["targets"], batches(4, 9))
    whole = device.train(program, d, epochs=4, seed=9)
    np.testing.assert_allclose([r.loss for r in whole], losses, rtol=1e-5)
    part = device.train(program, d, epochs=4, seed=9, steps=7, reset=True)
    assert part.result().steps == 7
    with connect("local", threads=1) as second:
        from_start = second.evaluate(program, d)
        assert second.evaluate(program, d, checkpoint=whole.folder) == device.evaluate(program, d, checkpoint=whole.folder)
        assert second.evaluate(program, d) == from_start
        rest = list(second.train(program, d, epochs=4, seed=9, resume=part.folder))
    assert [r.step for r in rest] == list(range(8, 21))
    np.testing.assert_allclose([r.loss for r in rest], losses[7:], rtol=1e-5)


def test_the_runs_folder_holds_everything(device: Device, program: Program, tmp_path: Path) -> None:
    session = device.train(program, data(), epochs=2, seed=4, checkpoint_every=3, options={"note": "mine"})
    result = session.result()
    run = read_run(session.folder)
    assert session.folder.parent == tmp_path / "runs"
    assert run.records == session.records
    facts = run.facts
    assert facts["program"]["sha256"] == program.sha256.hex()
    assert facts["options"]["seed"] == 4
    assert facts["options"]["note"] == "mine"
    assert facts["board"]["isa"] == device.info.isa
    assert facts["board"]["profile"] == "local"
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["started"] <= facts["ended"]
    assert facts["result"]["state"] == "done"
    assert facts["result"]["steps"] == result.steps == 10
    assert facts["dropped"] == SAMPLES % BATCH
    names = {p.name for p in session.folder.iterdir()}
    assert names == {"run.json", "steps.jsonl", "program.ekp", "data", "final.ekc", "checkpoint.ekc"}
    assert Program.from_bytes((session.folder / "program.ekp").read_bytes()).sha256 == program.sha256
    assert (tmp_path / session.folder / "data" / "inputs.npy").exists()


def test_a_folder_is_taken_where_it_lies(device: Device, program: Program, tmp_path: Path) -> None:
    for name, array in data().items():
        np.save(tmp_path / f"{name}.npy", array)
    session = device.train(program, tmp_path, run_dir=tmp_path / "run")
    assert session.result().steps == 5
    assert not (tmp_path / "run" / "data").exists()
    assert read_run(tmp_path / "run").facts["options"]["dataset"] == str(tmp_path)


def test_leaving_the_loop_stops_the_board(device: Device, program: Program) -> None:
    session = device.train(program, data(), epochs=LONG)
    for record in session:
        if record.step == 20:
            break
    assert not session.running
    assert device.client.status().state == "stopped"
    run = read_run(session.folder)
    assert run.facts["result"]["state"] == "stopped"
    assert run.records == session.records
    assert len(run.records) >= 20
    assert session.result().state == "stopped"
    assert list(session) == session.records
    assert device.evaluate(program, data()).samples == SAMPLES


def test_an_error_in_the_loop_stops_the_board(device: Device, program: Program) -> None:
    session = device.train(program, data(), epochs=LONG)
    with pytest.raises(ZeroDivisionError):
        fail_at_the_first(session)
    assert device.client.status().state == "stopped"
    assert session.checkpoint is not None


def fail_at_the_first(session: Session) -> None:
    for record in session:
        print(record.step // 0)


def test_ctrl_c_stops_the_board(device: Device, program: Program) -> None:
    session = device.train(program, data(), epochs=LONG)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in session:
            pass
    assert device.client.status().state == "stopped"
    assert read_run(session.folder).facts["result"]["state"] == "stopped"
    assert session.state()["w"].shape == (3, 4)


def test_closing_the_device_stops_the_session(program: Program, tmp_path: Path) -> None:
    with connect("local", threads=1) as device:
        session = device.train(program, data(), epochs=LONG, run_dir=tmp_path / "run")
    assert session.ended_as == "stopped"
    assert read_run(tmp_path / "run").facts["result"]["state"] == "stopped"
    device.close()
    with pytest.raises(LinkError, match="closed"):
        device.evaluate(program, data())


def test_stopping_twice_is_fine_and_the_state_can_be_read_meanwhile(device: Device, program: Program) -> None:
    session = device.train(program, data(), epochs=LONG)
    assert session.state()["w"].shape == (3, 4)
    assert session.running
    session.stop()
    session.stop()
    assert session.ended_as == "stopped"


def test_a_session_that_ended_unseen_can_be_stopped(device: Device, program: Program) -> None:
    session = device.train(program, data())
    while device.client.status().state == "running":
        pass
    session.stop()
    assert session.ended_as == "done"
    assert len(session.records) == 5


def test_records_that_came_too_fast_are_counted(device: Device, program: Program) -> None:
    session = device.train(program, data(), epochs=LONG)
    while device.client.status().step < 5000:
        pass
    session.stop()
    assert session.lost > 0
    steps = [r.step for r in session.records]
    assert steps == list(range(session.lost + 1, session.lost + len(steps) + 1))
    assert read_run(session.folder).facts["result"]["lost_records"] == session.lost


def test_ctrl_c_at_the_very_end_leaves_a_complete_run(device: Device, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    session = device.train(program, data())
    save = device.client.save

    def interrupted(path: str) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return save(path)

    monkeypatch.setattr(device.client, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.result()
    assert read_run(session.folder).facts["result"]["state"] == "done"
    assert session.state()["w"].shape == (3, 4)


def test_a_loss_that_leaves_the_numbers_is_an_error(device: Device) -> None:
    wild = Classifier(lr=1e38).program()
    session = device.train(wild, data(), epochs=50)
    with pytest.raises(DivergedError, match=r"NaN|infinite") as caught:
        session.result()
    assert "learning rate" in caught.value.hint
    run = read_run(session.folder)
    assert run.facts["result"]["state"] == "failed"
    assert not math.isfinite(run.records[-1].loss)
    with pytest.raises(DivergedError):
        session.state()
    assert device.evaluate(wild, data()).loss is not None  # with the program's own parameters


def test_a_runner_that_dies_is_an_error_and_the_run_says_so(program: Program, tmp_path: Path) -> None:
    device = connect("local", threads=1)
    session = device.train(program, data(), epochs=LONG, run_dir=tmp_path / "run")
    next(iter_without_stop(session))
    os.kill(device.info.pid, signal.SIGKILL)
    with pytest.raises(LinkError, match="SIGKILL"):
        session.result()
    result = read_run(tmp_path / "run").facts["result"]
    assert result["state"] == "failed"
    assert "SIGKILL" in result["error"]
    device.close()


def iter_without_stop(session: Any) -> Any:
    """Records so far, leaving the board alone."""
    while not session.records:
        session._pull()
    return iter(session.records)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"checkpoint_every": -1}, "checkpoint_every is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is"),
        ({"resume": "x", "reset": True}, "exclude"),
        ({"resume": "none.ekc"}, "none.ekc"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], words: str, device: Device, program: Program) -> None:
    with pytest.raises(InputError, match=words):
        device.train(program, data(), **options)
    assert not Path("runs").exists()


def test_bad_data_leaves_no_folder(device: Device, program: Program) -> None:
    with pytest.raises(DataError, match="nan"):
        device.train(program, {**data(), "inputs": np.full((SAMPLES, 3), np.nan, np.float32)})
    assert not Path("runs").exists()


def test_another_architectures_program_is_refused_before_it_is_sent(device: Device) -> None:
    foreign = Architecture.AARCH64 if platform.machine() == "x86_64" else Architecture.X86_64
    for bad in (Classifier().program(foreign), Classifier().program(backend=Backend.TORCH)):
        with pytest.raises(InputError, match="the program is for") as caught:
            device.train(bad, data())
        assert "--board" in caught.value.hint
    assert device._loaded is None


def test_the_board_refuses_what_the_host_lets_through(device: Device, program: Program, tmp_path: Path) -> None:
    foreign = Architecture.AARCH64 if platform.machine() == "x86_64" else Architecture.X86_64
    path = tmp_path / "a.ekp"
    Classifier().program(foreign).save(path)
    with pytest.raises(InputError, match="WRONG_BOARD"):
        device.client.load(str(path))
    path.write_bytes(program.data[:-1])
    with pytest.raises(IntegrityError):
        device.client.load(str(path))
    path.write_bytes(program.data[:-9] + b"x" + program.data[-8:])
    with pytest.raises(IntegrityError, match="BAD_DIGEST"):
        device.client.load(str(path))
    with pytest.raises(StorageError, match="NOT_FOUND"):
        device.client.load(str(tmp_path / "none"))
    with pytest.raises(DeviceError, match="NO_PROGRAM"):
        device.client.save(str(tmp_path / "x"))
    assert device.evaluate(program, data()).samples == SAMPLES


def test_data_that_changes_behind_the_hosts_back_is_found_by_the_board(device: Device, program: Program, tmp_path: Path) -> None:
    path = check_data(data(), program, "evaluate").place(tmp_path / "data")
    device.evaluate(program, path)
    np.save(path / "targets.npy", np.full(SAMPLES, 9))
    with pytest.raises(DataError, match=r"targets\.npy"):
        device._run(StartRequest(kind="evaluate", data=str(path)))
    np.save(path / "inputs.npy", np.full((SAMPLES, 3), np.nan, np.float32))
    with pytest.raises(DataError, match=r"NOT_FINITE|BAD_LABEL"):
        device._run(StartRequest(kind="evaluate", data=str(path)))
    np.save(path / "inputs.npy", np.zeros((SAMPLES, 5), np.float32))
    with pytest.raises(DataError, match=r"inputs\.npy.*BAD_DATA"):
        device._run(StartRequest(kind="evaluate", data=str(path)))


def test_checkpoints_of_others_are_refused(device: Device, program: Program) -> None:
    done = device.train(program, data())
    done.result()
    other = Classifier(lr=0.5).program()
    with pytest.raises(IntegrityError, match="belongs to the program"):
        device.train(other, data(), resume=done.folder)
    with pytest.raises(IntegrityError, match="belongs to the program"):
        device.evaluate(other, data(), checkpoint=done.folder / "final.ekc")
    final = done.folder / "final.ekc"
    final.write_bytes(final.read_bytes()[:-3])
    with pytest.raises(IntegrityError, match="cut off"):
        device.train(program, data(), resume=final)
    with pytest.raises(InputError, match="holds no checkpoint"):
        device.train(program, data(), resume=done.folder / "data")


def test_a_run_is_not_overwritten(device: Device, program: Program) -> None:
    device.train(program, data(), run_dir="runs/one").result()
    steps = Path("runs/one/steps.jsonl").read_bytes()
    with pytest.raises(InputError, match="holds a run"):
        device.train(program, data(), run_dir="runs/one")
    assert Path("runs/one/steps.jsonl").read_bytes() == steps


def test_bench_times_steps_and_ops(device: Device, program: Program) -> None:
    bench = device.bench(program, steps=5, profile=True)
    assert len(bench.step_ns) == 5
    assert min(bench.step_ns) > 0
    assert bench.memory.state == program.header.state_bytes
    assert bench.ops is not None
    assert {op.name for op in bench.ops} == {op.op.name for op in program.entries["train_step"].ops}
    assert sum(op.share for op in bench.ops) == pytest.approx(1)
    assert all(op.runs == 6 for op in bench.ops)
    assert bench.limits is not None
    assert all(op.limit_ns == pytest.approx(1e9 * bench.limits.seconds(op.flops, op.nbytes)[0]) for op in bench.ops)
    assert bench.efficiency is not None
    assert 0 < bench.efficiency < 1
    assert not Path("runs").exists()
    assert device.bench(program, steps=1).ops is None


@pytest.mark.parametrize(
    ("flops", "nbytes", "seconds", "limited_by"),
    [
        (2000, 10, 2.0, "compute"),
        (1000, 400, 2.0, "memory"),  # at the speed of data that fits the cache
        (1000, 401, 8.02, "memory"),  # at that of larger data
        (0, 10**6, 20000.0, "memory"),  # larger than all that was measured
    ],
)
def test_the_nearer_limit_counts(flops: int, nbytes: int, seconds: float, limited_by: str) -> None:
    assert Limits(1000, ((400, 200), (800, 50))).seconds(flops, nbytes) == (pytest.approx(seconds), limited_by)


def test_sensors_that_are_absent_are_unknown(device: Device, program: Program) -> None:
    device.client.sensors({})
    record = device.train(program, data(), steps=1).result() and read_run(next(Path("runs").iterdir())).records[0]
    assert (record.temperature_c, record.clock_khz, record.throttled, record.power_w) == (None,) * 4


def test_sensors_are_read_each_step(device: Device, program: Program, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("48250\n")
    (tmp_path / "p").write_text("2500000\n")
    device.client.sensors({"temperature": str(tmp_path / "t"), "power": str(tmp_path / "p")})
    session = device.train(program, data(), steps=2)
    session.result()
    assert [(r.temperature_c, r.power_w, r.clock_khz) for r in session.records] == [(48.25, 2.5, None)] * 2


def test_an_interrupted_evaluation_leaves_the_board_free(device: Device, program: Program, tmp_path: Path) -> None:
    device.evaluate(program, data())
    many = check_data(data(3_000_000), program, "evaluate").place(tmp_path / "many")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        device._run(StartRequest(kind="evaluate", data=str(many)))
    assert device.client.status().state != "running"
    assert device.evaluate(program, data()).samples == SAMPLES


def test_changing_the_folder_meanwhile_does_no_harm(device: Device, program: Program, tmp_path: Path) -> None:
    session = device.train(program, data(), run_dir="run")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    session.result()
    assert read_run(tmp_path / "run").facts["result"]["state"] == "done"
    assert session.state()["b"].shape == (4,)


def test_unknown_boards_and_instruction_sets_are_named() -> None:
    with pytest.raises(InputError, match="no board 'toaster'"):
        connect("local", board="toaster")
    with pytest.raises(InputError, match="threads is 0"):
        connect("local", threads=0)
    with pytest.raises(LinkError, match="sse1"):
        connect("local", isa="sse1")


FULL = """
import resource, sys
from pathlib import Path
from edgekit.errors import StorageError
from edgekit.sessions import connect
from tests.runner.programs import Classifier, sample_data
inputs, targets = sample_data(22)
with connect("local", threads=1) as device:
    session = device.train(Classifier().program(), {"inputs": inputs, "targets": targets}, epochs=100000, run_dir=sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    try:
        session.result()
    except StorageError as error:
        print(device.client.status().state, error.message)
"""


def test_a_full_disk_stops_the_board_and_leaves_whole_files(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    state, message = done.stdout.split(maxsplit=1)
    assert state == "stopped"
    assert "disk is full" in message
    run = read_run(tmp_path / "run")
    assert run.facts["result"]["state"] == "stopped"
    assert "disk is full" in run.facts["result"]["error"]
    assert [r.step for r in run.records] == list(range(1, len(run.records) + 1))
    json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_data_set_that_does_not_fit_the_disk_is_not_half_written(device: Device, program: Program) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match=r"inputs\.npy: the disk is full"):
            device.train(program, data(10_000), run_dir="runs/full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(Path("runs/full/data").iterdir()) == []
    run = read_run(Path("runs/full"))
    assert run.facts["result"]["state"] == "refused"
    assert "disk is full" in run.facts["result"]["error"]


def test_a_removed_run_folder_is_a_clear_error(device: Device, program: Program) -> None:
    session = device.train(program, data(), epochs=LONG, run_dir="runs/gone")
    shutil.rmtree("runs/gone")
    with pytest.raises(StorageError, match="gone"):
        session.stop()
    assert device.client.status().state == "stopped"


def test_a_final_state_that_cannot_be_written_is_an_error(device: Device, program: Program) -> None:
    session = device.train(program, data(), run_dir="runs/blocked")
    Path("runs/blocked/final.ekc").mkdir()
    with pytest.raises(StorageError, match=r"final\.ekc"):
        session.result()
    facts = read_run(Path("runs/blocked")).facts
    assert "final.ekc" in facts["result"]["error"]
    assert facts["result"]["steps"] == 5
