"""Trainings that outlive connection and host: every step once, and the same bits as without the trouble."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit.protocol.status import Status
from tests.host.home import (
    Home,
    records_of,
    session_of,
    training,
    uninterrupted,
    wait_for,
    what_was_learned,
)
from tests.runner.make_golden import INFO, LOAD, RECORDS, REMOVE, RESUME, SESSIONS, START, STATUS, STOP
from tests.runner.process import Runner, RunnerError
from tests.support.disks import small_disk

LONG = {"samples": 4000, "epochs": 10**5}


def test_training_survives_the_end_of_its_connection(home: Home, tmp_path: Path) -> None:
    first = home.attach()
    instance = first.ask(INFO)["instance"]
    started = first.ask(START, **training(tmp_path, **LONG))
    assert started == {"id": 1, "steps": 10**8, "samples": 4000, "dropped": 0, "next": 0}
    assert first.close() == 0
    second = home.attach()
    assert second.ask(INFO)["instance"] == instance
    status = second.ask(STATUS)
    assert (status["state"], status["session"]) == ("running", "s1")
    wait_for(lambda: second.ask(STATUS)["step"] > status["step"])
    first_records = records_of(second, "s1")
    assert [r[:2] for r in first_records[:100]] == [[i, i + 1] for i in range(100)]
    second.ask(STOP, session="s1")
    assert second.finish()["state"] == "stopped"
    assert session_of(second, "s1")["state"] == "stopped"


def test_a_start_whose_answer_was_lost_is_answered_again(home: Home, tmp_path: Path) -> None:
    keys = training(tmp_path)
    evaluate = {"kind": "evaluate", "data": keys["data"], "program": keys["program"], "token": 2**63 + 1}
    runner = home.attach()
    started = runner.ask(START, **evaluate)
    assert home.attach().ask(START, **evaluate) == started
    assert runner.finish()["state"] == "done"
    assert runner.ask(START, **evaluate) == started
    assert (runner.ask(STATUS)["state"], runner.ask(STATUS)["id"]) == ("done", started["id"])
    assert runner.ask(START, **evaluate | {"token": 1})["id"] == started["id"] + 1
    runner.finish()


def test_two_watchers_see_every_record_once(home: Home, tmp_path: Path) -> None:
    starter = home.attach()
    watchers = [home.attach(), home.attach()]
    seen: list[list[list[object]]] = [[], []]

    def watch(runner: Runner, rows: list[list[object]]) -> None:
        while True:
            part = runner.ask(RECORDS, since=len(rows), max=50, session="s1")
            rows += part["records"]
            if part["state"] == "done" and not part["records"]:
                return

    starter.ask(START, **training(tmp_path, samples=4000))
    threads = [threading.Thread(target=watch, args=pair) for pair in zip(watchers, seen, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for rows in seen:
        assert [r[:2] for r in rows] == [[i, i + 1] for i in range(4000)]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_killed_at_many_points_it_ends_as_if_undisturbed(home: Home, tmp_path: Path, seed: int) -> None:
    start = training(tmp_path, samples=16_000, every=97)
    checkpoint, learned = uninterrupted(home, start)
    rng = random.Random(seed)
    kills, state = 0, "interrupted"
    while state != "done":
        runner = home.attach()
        if kills:
            runner.ask(RESUME, session="s1")
        else:
            runner.ask(START, **start)
        time.sleep(rng.uniform(0, 0.06))
        home.kill()
        kills += 1
        runner.close()
        state = session_of(home.attach(), "s1")["state"]
        assert kills < 300
    runner = home.attach()
    assert kills > 2
    assert what_was_learned(records_of(runner, "s1")) == learned
    assert (home.folder("s1") / "checkpoint.ekc").read_bytes() == checkpoint
    assert sorted(p.name for p in home.folder("s1").iterdir()) == ["checkpoint.ekc", "records", "request", "result"]


@pytest.mark.parametrize("damage", ["cut", "torn", "garbage", "flipped", "behind the checkpoint", "no records", "no checkpoint"])
def test_what_a_power_cut_leaves_is_gone_over(home: Home, tmp_path: Path, damage: str) -> None:
    start = training(tmp_path, every=40)
    checkpoint, learned = uninterrupted(home, start)
    runner = home.attach()
    runner.ask(START, **start)
    runner.finish()
    home.kill()
    folder = home.folder("s1")
    (folder / "result").unlink()
    with (folder / "records").open("r+b") as file:
        if damage == "cut":
            file.truncate(390 * 128)  # behind it lies nothing that a checkpoint knows
        elif damage == "torn":
            file.truncate(400 * 128 - 1)
        elif damage == "garbage":
            file.seek(0, os.SEEK_END)
            file.write(b"\0" * 4096)
        elif damage == "flipped":
            file.seek(200 * 128 + 60)
            file.write(b"\xff")
        elif damage == "behind the checkpoint":
            file.truncate(7 * 128)
    if damage == "no records":
        (folder / "records").unlink()
    if damage == "no checkpoint":
        (folder / "checkpoint.ekc").unlink()
    runner = home.attach()
    assert session_of(runner, "s1")["state"] == "interrupted"
    runner.ask(RESUME, session="s1")
    assert runner.finish()["state"] == "done"
    assert what_was_learned(records_of(runner, "s1")) == learned
    assert (folder / "checkpoint.ekc").read_bytes() == checkpoint


def test_sigterm_leaves_a_session_to_go_on_with(home: Home, tmp_path: Path) -> None:
    start = training(tmp_path, samples=40_000)
    checkpoint, learned = uninterrupted(home, start)
    runner = home.attach()
    runner.ask(START, **start)
    wait_for(lambda: runner.ask(STATUS)["step"] > 100)
    home.kill(signal.SIGTERM)
    runner = home.attach()
    row = session_of(runner, "s1")
    assert row["state"] == "stopped"
    assert row["checkpoint"] == row["step"] == row["records"]
    answer = runner.ask(RESUME, session="s1")
    assert answer["next"] == row["records"]
    assert answer["steps"] == 40_000
    assert runner.finish()["state"] == "done"
    assert what_was_learned(records_of(runner, "s1")) == learned
    assert (home.folder("s1") / "checkpoint.ekc").read_bytes() == checkpoint


def test_a_start_that_is_sent_again_trains_once(home: Home, tmp_path: Path) -> None:
    start = training(tmp_path)
    runner = home.attach()
    answer = runner.ask(START, **start)
    assert runner.ask(START, **start) == answer
    runner.finish()
    assert runner.ask(START, **start) == answer
    assert runner.ask(STATUS)["id"] == 1
    home.kill()
    runner = home.attach()
    assert runner.ask(START, **start) == answer
    assert runner.ask(STATUS)["state"] == "idle"
    assert "started otherwise" in runner.fails(Status.BAD_REQUEST, START, **start | {"seed": 6})
    runner.fails(Status.NO_SESSION, RESUME, session="s1")
    runner.ask(REMOVE, session="s1")
    runner.ask(REMOVE, session="s1")
    assert runner.ask(START, **start | {"seed": 6})["id"] == 1
    runner.finish()


def test_one_trains_at_a_time(home: Home, tmp_path: Path) -> None:
    start = training(tmp_path, **LONG)
    runner = home.attach()
    answer = runner.ask(START, **start)
    assert runner.ask(RESUME, session="s1") == answer
    assert "s1" in runner.fails(Status.BUSY, START, **start | {"session": "s2"})
    runner.fails(Status.BUSY, REMOVE, session="s1")
    runner.fails(Status.BUSY, LOAD, path=start["program"])
    runner.fails(Status.NO_SESSION, STOP, session="s2")
    assert runner.ask(STATUS)["state"] == "running"
    runner.ask(STOP, session="s1")
    runner.finish()
    assert [s["id"] for s in runner.ask(SESSIONS, skip=0)["sessions"]] == ["s1"]


def test_a_start_that_fails_keeps_nothing(home: Home, tmp_path: Path) -> None:
    runner = home.attach()
    start = training(tmp_path)
    runner.fails(Status.NOT_FOUND, START, **start | {"data": "/nowhere"})
    runner.fails(Status.NOT_FOUND, START, **start | {"program": "/nowhere"})
    runner.fails(Status.NOT_FOUND, START, **start | {"state": "/nowhere"})
    assert runner.ask(SESSIONS, skip=0) == {"sessions": [], "next": 0, "total": 0}
    assert not home.folder("s1").exists()


def test_a_training_begins_from_the_programs_own_parameters(home: Home, tmp_path: Path) -> None:
    """So that it can begin again after a cut before the first checkpoint."""
    runner = home.attach()
    for name in ("s1", "s2"):
        runner.ask(START, **training(tmp_path, session=name))
        assert runner.finish()["state"] == "done"
    assert what_was_learned(records_of(runner, "s1")) == what_was_learned(records_of(runner, "s2"))


def test_a_training_may_go_on_from_anothers_checkpoint(home: Home, tmp_path: Path) -> None:
    whole = training(tmp_path, session="whole")
    _, learned = uninterrupted(home, whole)
    runner = home.attach()
    runner.ask(START, **whole | {"session": "half", "steps": 200})
    assert runner.finish()["step"] == 200
    resume = str(home.folder("half") / "checkpoint.ekc")
    runner.ask(START, **whole | {"session": "rest", "resume": resume, "every": 30, "steps": 150})
    assert runner.finish()["step"] == 350
    rows = records_of(runner, "rest")
    assert [r[:2] for r in rows[:2]] == [[0, 201], [1, 202]]
    home.kill()
    (home.folder("rest") / "result").unlink()
    (home.folder("rest") / "checkpoint.ekc").unlink()
    with (home.folder("rest") / "records").open("r+b") as file:
        file.truncate(100 * 128)
    runner = home.attach()
    assert runner.ask(RESUME, session="rest")["steps"] == 350
    assert runner.finish()["step"] == 350
    assert what_was_learned(records_of(runner, "rest")) == learned[200:350]


def test_many_sessions_come_in_pages_the_newest_last(home: Home, tmp_path: Path) -> None:
    runner = home.attach()
    names = [f"{random.Random(i).randrange(1000)}-{i}" for i in range(50)]
    for name in names:
        runner.ask(START, **training(tmp_path, samples=4, epochs=1, session=name))
        runner.finish()
    listed, sizes = [], []
    while True:
        page = runner.ask(SESSIONS, skip=len(listed))
        listed += page["sessions"]
        sizes.append(len(page["sessions"]))
        if page["next"] == page["total"]:
            break
    assert [s["id"] for s in listed] == names
    assert sizes == [23, 23, 4]
    assert {(s["state"], s["step"], s["records"], s["checkpoint"]) for s in listed} == {("done", 1, 1, 1)}


def test_a_diverged_training_tells_why_after_its_host_is_gone(home: Home, tmp_path: Path) -> None:
    runner = home.attach()
    start = training(tmp_path)
    inputs = tmp_path / "data-400" / "inputs.npy"
    inputs.write_bytes(inputs.read_bytes()[:-4] + b"\x00\x00\x80\x7f")  # infinity
    runner.ask(START, **start | {"shuffle": False})
    status = runner.finish()
    assert (status["state"], status["rc"]) == ("failed", Status.NOT_FINITE)
    home.kill()
    row = session_of(home.attach(), "s1")
    assert (row["state"], row["rc"], row["why"]) == ("failed", Status.NOT_FINITE, status["why"])
    assert row["step"] == row["records"] == 99


def refused(runner: Runner, start: dict[str, Any]) -> RunnerError | None:
    """Start; the error where it fails."""
    try:
        runner.ask(START, **start)
    except RunnerError as error:
        return error
    return None


def test_a_full_disk_at_every_phase(home: Home, tmp_path: Path, command: tuple[str, ...]) -> None:
    """With 0, 1, 2 … free pages the start or the session fails; once there is room, it ends as if undisturbed."""
    start = training(tmp_path, samples=100, every=10)
    checkpoint, learned = uninterrupted(home, start)
    path = tmp_path / "disk"
    mounted = contextlib.ExitStack()
    mounted.enter_context(small_disk(path, 512))
    small = Home(path / "home", command)
    filler, page = path / "filler", 4096
    failed_at_start = failed_later = 0
    try:
        runner = small.attach("--threads", "1")
        runner.ask(INFO)
        for free in range(12):
            name = f"s{free}"
            filler.write_bytes(b"")
            room = runner.ask(INFO)["disk"]
            filler.write_bytes(bytes(room - free * page))
            refusal = refused(runner, start | {"session": name})
            if refusal is not None:
                assert refusal.rc == Status.NO_SPACE
                assert "No space" in refusal.why
                assert not small.folder(name).exists()
                failed_at_start += 1
                filler.unlink()
                runner.ask(START, **start | {"session": name})
            status = runner.finish()
            filler.write_bytes(b"")
            if status["state"] == "failed":
                assert status["rc"] == Status.NO_SPACE
                assert "No space" in status["why"]
                failed_later += 1
                runner.ask(RESUME, session=name)
                status = runner.finish()
            assert status["state"] == "done"
            assert what_was_learned(records_of(runner, name)) == learned
            assert (small.folder(name) / "checkpoint.ekc").read_bytes() == checkpoint
            runner.ask(REMOVE, session=name)
        assert failed_at_start > 0
        assert failed_later > 0
    finally:
        small.close()
        mounted.close()


@pytest.mark.slow
def test_without_every_there_is_a_checkpoint_every_30_seconds(home: Home, tmp_path: Path) -> None:
    runner = home.attach()
    runner.ask(START, **training(tmp_path, **LONG))
    time.sleep(27)
    assert session_of(runner, "s1")["checkpoint"] is None
    wait_for(lambda: session_of(runner, "s1")["checkpoint"] is not None, 10)
    runner.ask(STOP)


@pytest.mark.slow
def test_on_an_emulated_board(emulated: Home, tmp_path: Path) -> None:
    start = training(tmp_path, samples=8000, every=100)
    checkpoint, learned = uninterrupted(emulated, start)
    runner = emulated.attach()
    runner.ask(START, **start)
    wait_for(lambda: runner.ask(STATUS)["step"] > 300)
    emulated.kill()
    runner = emulated.attach()
    assert session_of(runner, "s1")["state"] == "interrupted"
    runner.ask(RESUME, session="s1")
    assert runner.finish()["state"] == "done"
    assert what_was_learned(records_of(runner, "s1")) == learned
    assert (emulated.folder("s1") / "checkpoint.ekc").read_bytes() == checkpoint
