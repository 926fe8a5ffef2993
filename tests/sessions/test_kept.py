"""Trainings that a board keeps, through the public interface: a real session host, and links that are cut."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit.firmware.build import build

from edgekit.board import load_board
from edgekit.errors import DeviceError, InputError, LinkError, LinkLost, StorageError
from edgekit.links import Deadline, LocalLink, native_target
from edgekit.program import Program
from edgekit.protocol.client import Restarted
from edgekit.sessions import Device, OnBoard, Session
from edgekit.telemetry import read_run
from tests.host.home import Home, wait_for
from tests.runner.programs import CLASSES, Classifier, sample_data, write_data

EPOCHS = 40
LONG = 200_000  #: epochs that no test waits for


@contextlib.contextmanager
def lost() -> Iterator[None]:
    """The end of a local process is the end of everything, but not that of a bridge."""
    try:
        yield
    except LinkError as error:
        raise LinkLost(error.message) from error


class CutLink(LocalLink):
    """A way to the session host that breaks when ``left`` counts to 0: before a message is sent, or before its answer came."""

    def __init__(self, command: list[str], left: list[int], answered: bool) -> None:
        super().__init__(command)
        self._left, self._answered = left, answered

    def send(self, data: bytes, deadline: Deadline) -> None:
        self._left[0] -= 1
        if self._left[0] == 0 and not self._answered:
            self._cut()
        with lost():
            super().send(data, deadline)
        if self._left[0] == 0:
            time.sleep(0.01)  # the board has done it by then
            self._cut()

    def receive(self, deadline: Deadline) -> bytes:
        with lost():
            return super().receive(deadline)

    def _cut(self) -> None:
        self.close()
        raise LinkLost("the cable was pulled")


class Board(Home):
    """A home folder with its session host."""

    def connect(self, cut_at: int = 0, answered: bool = False) -> Device:
        command, left = [*self.command, "attach", "--home", str(self.path), "--threads", "1"], [cut_at]

        def link() -> LocalLink:
            return CutLink(command, left, answered)

        return Device(link(), load_board("local"), link)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.chdir(tmp_path)
    made = Board(tmp_path / "home", (str(build("runner", native_target())),))
    yield made
    made.close()


@pytest.fixture
def program() -> Program:
    return Classifier().program()


def data() -> dict[str, Any]:
    inputs, targets = sample_data(22)
    return {"inputs": inputs, "targets": targets}


def expected() -> tuple[list[float], Any]:
    """Losses and weights of an uninterrupted training, on a runner that keeps nothing."""
    from edgekit.sessions import connect

    with connect("local", threads=1) as device:
        session = device.train(Classifier().program(), data(), epochs=EPOCHS, seed=5, run_dir="plain")
        losses = [r.loss for r in session]
        return losses, session.state()["w"]


def check(session: Session, losses: list[float], weights: Any) -> None:
    """Every step is there once, in the folder too, with the very numbers of an uninterrupted training."""
    assert [r.step for r in session.records] == list(range(1, len(losses) + 1))
    assert [r.loss for r in session.records] == losses
    assert read_run(session.folder).records == session.records
    np.testing.assert_array_equal(session.state()["w"], weights)


def test_a_session_is_kept_and_found_again(board: Board, program: Program) -> None:
    losses, weights = expected()
    with board.connect() as device:
        session = device.train(program, data(), epochs=EPOCHS, seed=5)
        session.detach()
        assert session.id is not None
        assert session.folder == Path.cwd() / "runs" / session.id
    with board.connect() as device:
        again = device.sessions.attach(session.id)
        again.result()
        check(again, losses, weights)
        (kept,) = device.sessions.list()
        assert (kept.id, kept.state, kept.step, kept.steps) == (session.id, "done", len(losses), len(losses))
        elsewhere = device.sessions.attach(session.id, "another")
        elsewhere.result()
        check(elsewhere, losses, weights)
        assert device.evaluate(program, data(), checkpoint="another").loss is not None
        device.sessions.remove(session.id)
        assert device.sessions.list() == []


def test_who_only_watches_does_not_stop_the_board(board: Board, program: Program) -> None:
    with board.connect() as device, board.connect() as other:
        session = device.train(program, data(), epochs=1_000_000)
        assert session.id is not None
        watched = other.sessions.attach(session.id, "watched")
        for _ in watched:
            break
        assert device.client.status().state == "running"
        for _ in session:
            break
        assert watched.result().state == session.ended_as == "stopped"


def test_what_was_trained_is_used(board: Board, program: Program) -> None:
    with board.connect() as device:
        before = device.evaluate(program, data())
        device.train(program, data(), epochs=EPOCHS)  # not waited for: evaluation does that
        after = device.evaluate(program, data())
        assert before.loss is not None
        assert after.loss is not None
        assert after.loss < before.loss
        assert device.predict(program, data()["inputs"]).shape == (22, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("answered", [False, True], ids=["request lost", "answer lost"])
def test_a_cut_at_any_message_loses_and_doubles_nothing(board: Board, program: Program, answered: bool) -> None:
    losses, weights = expected()
    for message in itertools.count(2):  # the first one opens the link
        device = board.connect(message, answered)
        with device:
            session = device.train(program, data(), epochs=EPOCHS, seed=5)
            session.result()
            check(session, losses, weights)
            uncut = device.client.link._left[0] > 0  # type: ignore[attr-defined]
            assert len(device.sessions.list()) == message - 1
        if uncut:
            break
    assert message > 8


def test_a_board_that_lost_its_power_is_told_from_a_lost_link(board: Board, program: Program) -> None:
    losses, weights = expected()
    with board.connect() as device:
        session = device.train(program, data(), epochs=EPOCHS, seed=5, checkpoint_every=7)
        seen = iter(session)
        for _ in range(3):
            next(seen)
        board.kill()
        with pytest.raises((Restarted, DeviceError), match=r"started anew|ended in the middle"):
            list(seen)
    assert session.id is not None
    with board.connect() as device:
        if device.sessions.list()[0].state == "interrupted":  # else it was faster than we
            again = device.sessions.resume(session.id)
        else:
            again = device.sessions.attach(session.id)
        again.result()
        check(again, losses, weights)


def test_resumed_again_and_again(board: Board, program: Program) -> None:
    steps = 3000
    with board.connect() as device:
        whole = device.train(program, data(), epochs=LONG, seed=5, steps=steps, run_dir="whole")
        whole.result()
        session = device.train(program, data(), epochs=LONG, seed=5, steps=steps, reset=True, checkpoint_every=100)
        session.detach()
    assert session.id is not None
    for _ in range(3):
        board.kill()
        with board.connect() as device:
            if {k.id: k.state for k in device.sessions.list()}[session.id] == "interrupted":
                device.sessions.resume(session.id).detach()
    with board.connect() as device:
        again = device.sessions.attach(session.id)
        again.result()
        check(again, [r.loss for r in whole.records], whole.state()["w"])


def test_fetch_does_not_disturb(board: Board, program: Program) -> None:
    with board.connect() as device:
        session = device.train(program, data(), epochs=LONG)
        session.detach()
        assert session.id is not None
        fetched = device.sessions.fetch(session.id)
        assert fetched.folder == session.folder
        assert (fetched.folder / "checkpoint.ekc").exists()
        assert fetched.ended_as == "running"
        assert read_run(fetched.folder).records
        with pytest.raises(DeviceError, match="BUSY"):
            device.train(program, data(), run_dir="second")
        with pytest.raises(DeviceError, match="NO_SESSION"):
            device.sessions.stop("another")
        device.sessions.stop(session.id)
        wait_for(lambda: device.sessions.list()[0].state == "stopped")
        more = device.sessions.fetch(session.id)
        assert more.checkpoint is not None
        assert [r.step for r in more.records] == list(range(1, len(more.records) + 1))


def test_data_that_stays_on_the_board(board: Board, program: Program, tmp_path: Path) -> None:
    d = data()
    folder = write_data(tmp_path / "there", d["inputs"], d["targets"])
    losses, weights = expected()
    with board.connect() as device:
        session = device.train(program, OnBoard(folder), epochs=EPOCHS, seed=5)
        session.result()
        check(session, losses, weights)
        with pytest.raises(StorageError, match=r"nowhere.*NOT_FOUND"):
            device.train(program, OnBoard(str(tmp_path / "nowhere")))


def test_wrong_names(board: Board, program: Program) -> None:
    with board.connect() as device:
        with pytest.raises(DeviceError, match="keeps no session 'x'"):
            device.sessions.attach("x")
        session = device.train(program, data(), run_dir="mine")
        session.result()
        other = device.train(program, data())
        other.result()
        assert other.id is not None
        with pytest.raises(InputError, match="holds another run"):
            device.sessions.attach(other.id, "mine")


def test_a_runner_that_keeps_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.sessions import connect

    monkeypatch.chdir(tmp_path)
    with connect("local", threads=1) as device, pytest.raises(DeviceError, match="keeps no sessions"):
        device.sessions.list()
