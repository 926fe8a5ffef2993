"""Data that comes as shards, with raw messages: what is taken, what is refused, and when the session waits."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgekit.files import npy_bytes
from edgekit.protocol.messages import Window
from edgekit.protocol.status import Status
from tests.runner.feeding import SAMPLES, STEPS, Feeding
from tests.runner.make_golden import RECORDS, SAVE, SHARDS, START, STATUS, STOP
from tests.runner.process import Runner


@pytest.fixture
def feeding(loaded: Runner, tmp_path: Path) -> Feeding:
    return Feeding(loaded, tmp_path / "spool")


def test_it_ends_as_with_the_whole_data_set(feeding: Feeding, tmp_path: Path) -> None:
    runner = feeding.runner
    runner.session("train", feeding.data, epochs=2, shuffle=True, seed=5, reset=True)
    whole = [row[1:4] for row in runner.records()]
    runner.ask(SAVE, path=str(tmp_path / "whole.ekc"))
    assert feeding.start() == {"id": 2, "steps": 24, "samples": SAMPLES, "dropped": 2, "next": 24}
    feeding.bring_all()
    assert runner.finish()["state"] == "done"
    runner.ask(SAVE, path=str(tmp_path / "streamed.ekc"))
    assert [row[1:4] for row in runner.records(24)] == whole
    assert (tmp_path / "streamed.ekc").read_bytes() == (tmp_path / "whole.ekc").read_bytes()
    assert list(feeding.folder.iterdir()) == []


def test_an_evaluation_counts_every_sample_once(loaded: Runner, tmp_path: Path) -> None:
    feeding = Feeding(loaded, tmp_path / "spool", "evaluate")
    loaded.session("evaluate", feeding.data)
    whole = loaded.metrics()
    feeding.start()
    feeding.bring_all()
    assert loaded.finish()["state"] == "done"
    assert loaded.metrics() == whole
    assert whole["samples"] == SAMPLES


def test_a_prediction_too(loaded: Runner, tmp_path: Path) -> None:
    out, streamed = tmp_path / "out.npy", tmp_path / "streamed.npy"
    feeding = Feeding(loaded, tmp_path / "spool", "predict", out=str(streamed))
    loaded.session("predict", feeding.data, out=str(out))
    feeding.start()
    feeding.bring_all()
    loaded.finish()
    assert streamed.read_bytes() == out.read_bytes()


def test_the_window_follows_the_steps(feeding: Feeding) -> None:
    feeding.start()
    window = feeding.window()
    assert [window[k] for k in ("first", "wanted", "until", "total", "steps")] == [0, 0, 2, 8, STEPS]
    assert (window["samples"], window["limit"], window["seed"], window["shuffle"]) == (SAMPLES, 96, 5, True)
    assert feeding.bring(1)["wanted"] == 0  # the second one first
    assert feeding.wait_until_it_waits() == 0
    assert feeding.runner.ask(RECORDS, since=0, max=9)["state"] == "waiting"
    feeding.bring(0)
    assert feeding.wait_until_it_waits() == 2 * STEPS
    window = feeding.window()
    assert [window[k] for k in ("first", "wanted", "until")] == [2, 2, 4]
    assert list(feeding.folder.iterdir()) == []


def test_what_was_changed_on_its_way_is_refused(feeding: Feeding) -> None:
    feeding.start()
    shard = feeding.build(0)
    for at in (0, 8, 60, 191, 192, len(shard) // 2, len(shard) - 1):
        changed = bytearray(shard)
        changed[at] ^= 1
        assert "changed on its way" in feeding.refused(Status.BAD_DIGEST, 0, bytes(changed), shard)
    assert "bytes here" in feeding.refused(Status.BAD_DIGEST, 0, shard[:-1], shard)
    assert "bytes here" in feeding.refused(Status.BAD_DIGEST, 0, shard + b"\0", shard)
    feeding.bring_all()
    assert feeding.runner.finish()["state"] == "done"


def rebuilt(shard: bytes, at: int, value: bytes) -> bytes:
    return shard[:at] + value + shard[at + len(value) :]


def test_what_does_not_belong_there_is_refused(feeding: Feeding) -> None:
    """Sent whole, but another shard, of another data set, of the wrong length, or not what the program takes."""
    feeding.start()
    shard = feeding.build(0)
    wrong = [
        ("another one", rebuilt(shard, 8, (1).to_bytes(8, "little"))),
        ("another data set", rebuilt(shard, 16, bytes(32))),
        ("says 11, 12 belong", rebuilt(shard, 48, (11).to_bytes(4, "little"))),
        ("has not 2 arrays", rebuilt(shard, 52, (3).to_bytes(4, "little"))),
        ("array 0 reaches past", rebuilt(shard, 56, (1 << 63).to_bytes(8, "little"))),
        ("no .npy file", rebuilt(shard, 192, b"x")),
        ("is none", b"EKSHARD2" + shard[8:]),
        ("cut off in its head", shard[:191]),
        ("array 1 reaches past", shard[:-8]),
    ]
    for why, content in wrong:
        assert why in feeding.refused(Status.BAD_DATA, 0, content)
    another = feeding.shards.build(Window.model_validate(feeding.window() | {"limit": 8}), 0)
    assert "12 belong" in feeding.refused(Status.BAD_DATA, 0, another)
    targets = npy_bytes(np.full(12, 7))
    label = rebuilt(shard, len(shard) - len(targets), targets)
    assert "has 7, expected 0 to 3" in feeding.refused(Status.BAD_LABEL, 0, label)


def test_without_room_nothing_is_taken(feeding: Feeding) -> None:
    feeding.start()
    shard = feeding.build(2)
    assert "no room for shard 2" in feeding.runner.fails(Status.BAD_REQUEST, SHARDS, **feeding.place(2, shard))
    assert "No such file" in feeding.runner.fails(
        Status.NOT_FOUND, SHARDS, number=0, bytes=len(shard), sha=hashlib.sha256(shard).digest()
    )


def test_a_shard_that_comes_twice_is_used_once(feeding: Feeding) -> None:
    feeding.start()
    feeding.bring(0)
    assert feeding.wait_until_it_waits() == STEPS
    assert feeding.bring(0)["wanted"] == 1
    assert list(feeding.folder.iterdir()) == []
    feeding.bring(2)
    assert feeding.bring(2)["wanted"] == 1
    assert feeding.wait_until_it_waits() == STEPS


def test_one_that_waits_can_be_stopped_and_saved(feeding: Feeding, tmp_path: Path) -> None:
    runner = feeding.runner
    feeding.start()
    feeding.bring(0)
    feeding.bring(1)
    done = feeding.wait_until_it_waits()
    assert "is running" in runner.fails(Status.BUSY, START, kind="evaluate", data=feeding.data)
    runner.ask(SAVE, path=str(tmp_path / "now.ekc"))
    (feeding.folder / "2.part").write_bytes(b"under way")
    runner.ask(STOP)
    assert runner.finish() | {"id": 1} == {**runner.ask(STATUS), "state": "stopped", "step": done, "id": 1}
    assert list(feeding.folder.iterdir()) == []
    assert "comes as shards" in runner.fails(Status.NO_SESSION, SHARDS)


def test_waiting_takes_no_time_of_the_processor(feeding: Feeding) -> None:
    feeding.start()
    feeding.wait_until_it_waits()
    before = processor_time(feeding.runner)
    time.sleep(0.5)
    assert processor_time(feeding.runner) - before <= 0.05


def processor_time(runner: Runner) -> float:
    fields = Path(f"/proc/{runner.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
