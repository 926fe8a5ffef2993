"""Data that does not fit on the board, over a real sshd: the same bits, within the spool's bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit
from edgekit.cli.main import run as run_command
from edgekit.errors import DataError, DeviceError, LinkError
from edgekit.protocol import client
from edgekit.sessions import feeder, streaming
from tests.host.home import wait_for
from tests.remote.board import Peak, Remote, bound
from tests.remote.training import EPOCHS, PROGRAM, SEED, STREAMED, check, data, train
from tests.runner.programs import Classifier, sample_data, write_data
from tests.support.boards import flash
from tests.support.disks import small_disk


def test_the_same_bits_within_the_bound(remote: Remote) -> None:
    with remote.connect() as device, Peak(remote.home.path) as peak:
        session = train(device, **STREAMED)
        session.result()
        check(session)
    assert peak.looks > 5
    assert 0 < peak.bytes <= bound(session) <= 18_000
    assert not list(remote.home.path.glob("sessions/*/spool"))
    assert not list(remote.home.path.glob("store/*.data"))


def test_killed_resumed_and_fed_again(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "_SLICE", 0)
    monkeypatch.setattr(client, "_PAUSE", 0.02)
    with remote.connect() as device:
        session = train(device, checkpoint_every=9, **STREAMED)
        seen = iter(session)
        for _ in range(30):
            next(seen)
        remote.home.kill()
        with pytest.raises((LinkError, DeviceError), match=r"started anew|ended in the middle"):
            list(seen)
    assert session.id is not None
    with remote.connect() as device:
        inputs, targets = sample_data(22, seed=3)
        with pytest.raises(DataError, match="another data set"):
            device.sessions.resume(session.id, data={"inputs": inputs, "targets": targets})
        resumed = device.sessions.resume(session.id, data=data())
        resumed.result()
        check(resumed)


def test_an_evaluation_in_shards(remote: Remote) -> None:
    with remote.connect() as device:
        whole = device.evaluate(PROGRAM, data())
        assert device.evaluate(PROGRAM, data(), stream=True, spool=4000) == whole
        assert not [path for path in remote.home.path.glob("work/*/*") if path.name.split(".")[0].isdigit()]


@pytest.mark.slow
def test_a_data_set_larger_than_the_disk(bare: Remote, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Chosen without being asked; the disk of 4 MiB, a quarter of which is the runner, never fills up."""
    monkeypatch.setattr(streaming, "_SPARE", 256 << 10)
    program = Classifier(batch=256).program()
    inputs, targets = sample_data(220_000)
    big: dict[str, Any] = {"inputs": inputs, "targets": targets}
    options: dict[str, Any] = {"epochs": 2, "seed": SEED, "reset": True}
    with edgekit.connect("local") as device:  # as many threads as there: their number is part of the rounding
        whole = device.train(program, big, run_dir="whole", **options)
        losses, weights = [r.loss for r in whole], whole.state()["w"]
        metrics = device.evaluate(program, big)
    with small_disk(bare.home.path, 4096, "nr_inodes=200"):
        flash(bare.address)
        with bare.connect() as device, Peak(bare.home.path) as peak:
            session = device.train(program, big, **options)
            session.result()
            assert device.evaluate(program, big) == metrics
        bare.home.close()
    assert "does not fit on the board" in caplog.text
    assert [r.loss for r in session.records] == losses
    np.testing.assert_array_equal(session.state()["w"], weights)
    assert peak.looks > 5
    assert peak.bytes <= bound(session) < 2 << 20


def test_only_what_the_board_lacks_takes_room(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that does not fit, but lies on the board already, is not streamed; another one is, if some of it fits."""
    folders = [write_data(tmp_path / str(seed), *sample_data(400, seed)) for seed in (1, 2)]
    size = 400 * 20
    with remote.connect() as device:
        device.train(PROGRAM, folders[0]).result()
        for room, folder, streamed in ((size - 1, 0, False), (size - 1, 1, True), (size, 1, False), (100, 1, False)):
            monkeypatch.setattr(streaming, "_room", lambda *_, room=room: room)
            session = device.train(PROGRAM, folders[folder])
            assert (session.feeder is not None) == streamed
            if streamed:
                assert bound(session) <= size
            session.result()


# ---- the command line ----


@pytest.fixture
def files(remote: Remote, tmp_path: Path) -> list[str]:
    """DEVICE MODEL --data DIR."""
    PROGRAM.save(tmp_path / "model.ekp")
    d = data()
    return [remote.address, str(tmp_path / "model.ekp"), "--data", write_data(tmp_path / "data", d["inputs"], d["targets"])]


Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must end with ``code``; its JSON document."""

    def call(*words: str, code: int = 0) -> Any:
        assert run_command([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def test_from_the_command_line(remote: Remote, files: list[str], run: Run) -> None:
    options = ["--epochs", str(EPOCHS), "--seed", str(SEED), "--threads", "1", "--stream", "--spool", "0.02"]
    report = run("train", *files, *options)
    assert (report["state"], report["steps"]) == ("done", 200)
    with remote.connect() as device:
        (kept,) = device.sessions.list()
        assert kept.stream is not None
        attached = device.sessions.attach(kept.id)
        attached.result()
        check(attached)
    assert run("evaluate", *files, "--stream", "--threads", "1")["samples"] == 22


def test_a_host_that_leaves_and_one_that_comes(remote: Remote, files: list[str], run: Run) -> None:
    refused = run("train", *files, "--stream", "--detach", code=2)
    assert "needs this computer" in str(refused)
    with remote.connect() as device:
        session = train(device, **STREAMED)
        session.detach()
        assert session.id is not None
        wait_for(lambda: device.sessions.list()[0].state == "waiting")
    (row,) = run("sessions", remote.address)
    assert row["state"] == "waiting"
    report = run("attach", remote.address, session.id, "--data", files[-1])
    assert (report["state"], report["steps"]) == ("done", 200)
