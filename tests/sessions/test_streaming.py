"""Data sets that are streamed, through the public interface: the same bits, whatever happens on the way."""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit.firmware.build import build

from edgekit.errors import DataError, DeviceError, InputError, IntegrityError, LinkError
from edgekit.links import Deadline, LocalLink, native_target
from edgekit.program import Program
from edgekit.sessions import Device, Session, connect, feeder
from edgekit.telemetry import read_run
from tests.host.home import wait_for
from tests.runner.programs import Classifier, sample_data
from tests.sessions.test_kept import Board

EPOCHS, SEED, SAMPLES = 6, 5, 103
SPOOL = 2500  #: bytes: a few shards of one step
LONG = 200_000  #: epochs that no test waits for


def data(seed: int = 1) -> dict[str, Any]:
    inputs, targets = sample_data(SAMPLES, seed)
    return {"inputs": inputs, "targets": targets}


def classifier(accumulate: int = 1) -> Program:
    return Classifier(dropout=0.3, accumulate=accumulate).program()


def train(device: Device, program: Program | None = None, **options: Any) -> Session:
    options = {"epochs": EPOCHS, "seed": SEED, "reset": True, "stream": True, "spool": SPOOL} | options
    return device.train(program or classifier(), data(), **options)


@cache
def expected(epochs: int = EPOCHS, shuffle: bool = True, accumulate: int = 1) -> tuple[list[float], Any]:
    """Losses and weights with the whole data set on the board."""
    options: dict[str, Any] = {"stream": False, "spool": None, "epochs": epochs, "shuffle": shuffle}
    with tempfile.TemporaryDirectory() as folder, connect("local", threads=1) as device:
        session = train(device, classifier(accumulate), run_dir=Path(folder) / "run", **options)
        return [r.loss for r in session], session.state()["w"]


def check(session: Session, losses: list[float], weights: Any) -> None:
    """Every step once, with the very numbers of a training on the whole data set."""
    assert [r.step for r in session.records] == list(range(1, len(losses) + 1))
    assert [r.loss for r in session.records] == losses
    assert read_run(session.folder).records == session.records
    np.testing.assert_array_equal(session.state()["w"], weights)


@pytest.fixture(autouse=True)
def piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and shards take turns: a small training must not be over in one go."""
    monkeypatch.setattr(feeder, "_SLICE", 0)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.chdir(tmp_path)
    made = Board(tmp_path / "home", (str(build("runner", native_target())),))
    yield made
    made.close()


def leave(session: Session) -> None:
    """Go away after the first steps."""
    seen = iter(session)
    next(seen)
    session.detach()
    seen.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("shuffle", "accumulate"), [(True, 1), (True, 2), (False, 1)])
@pytest.mark.parametrize("spool", [2200, 10**6], ids=["less than an epoch", "all of it"])
def test_the_same_bits(board: Board, shuffle: bool, accumulate: int, spool: int) -> None:
    program = classifier(accumulate)
    with board.connect() as device:
        session = train(device, program, shuffle=shuffle, spool=spool)
        session.result()
        check(session, *expected(shuffle=shuffle, accumulate=accumulate))
        assert session.id is not None
        assert sorted(p.name for p in board.folder(session.id).iterdir()) == [
            "checkpoint.ekc",
            "fetched",
            "records",
            "request",
            "result",
        ]
        assert read_run(session.folder).facts["options"]["stream"]["bytes"] <= spool


def test_a_board_that_keeps_nothing_is_fed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with connect("local", threads=1) as device:
        session = train(device)
        session.result()
        check(session, *expected())


def test_steps_and_a_checkpoint_to_go_on_from(board: Board) -> None:
    """The second training begins in the middle of a shard, with the checkpoint's seed."""
    losses, weights = expected()
    with board.connect() as device:
        first = train(device, steps=40, spool=10**6, run_dir="first")
        first.result()
        second = train(device, resume="first", reset=False, seed=9, spool=10**6)
        second.result()
        assert [r.loss for r in first.records] + [r.loss for r in second.records] == losses
        np.testing.assert_array_equal(second.state()["w"], weights)


def test_an_evaluation_in_shards(board: Board) -> None:
    with board.connect() as device:
        train(device).result()
        whole = device.evaluate(classifier(), data())
        assert device.evaluate(classifier(), data(), stream=True, spool=SPOOL) == whole
        assert whole.samples == SAMPLES


def test_a_session_without_its_host_waits_and_goes_on_with_the_next(board: Board) -> None:
    losses, weights = expected()
    with board.connect() as device:
        session = train(device)
        leave(session)
        assert session.id is not None
    with board.connect() as device:
        wait_for(lambda: device.sessions.list()[0].state == "waiting")
        assert 0 < device.sessions.list()[0].step < len(losses)
        again = device.sessions.attach(session.id, data=data())
        again.result()
        check(again, losses, weights)


def test_two_hosts_may_feed_one_session(board: Board) -> None:
    losses, weights = expected()
    with board.connect() as first, board.connect() as second:
        session = train(first)
        assert session.id is not None
        other = second.sessions.attach(session.id, "other", data())
        for _ in zip(session, other, strict=False):
            pass
        session.result()
        other.result()
        check(session, losses, weights)
        check(other, losses, weights)


def test_who_only_watches_is_told_what_is_missing(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    with board.connect() as device:
        session = train(device, epochs=LONG)
        leave(session)
        assert session.id is not None
        watched = device.sessions.attach(session.id)
        with caplog.at_level(logging.WARNING, "edgekit"):
            while not watched.waiting:
                watched._pull()
            watched.stop()
        assert "waits for data" in caplog.text
        assert "--data" in caplog.text


def test_killed_and_resumed_again_and_again(board: Board) -> None:
    losses, weights = expected(epochs=20)
    with board.connect() as device:
        session = train(device, epochs=20, checkpoint_every=7)
        assert session.id is not None
        _kill_soon(board, session, 10)
    for more in range(3):
        with board.connect() as device:
            session = device.sessions.resume(session.id, data=data())
            _kill_soon(board, session, 40 * (more + 1))
    with board.connect() as device:
        again = device.sessions.resume(session.id, data=data())
        again.result()
        check(again, losses, weights)
        assert not (board.folder(session.id) / "spool").exists()


def _kill_soon(board: Board, session: Session, records: int) -> None:
    """Kill the runner once so many records came; the host sees it."""
    seen = iter(session)
    for _ in range(records):
        next(seen)
    board.kill()
    with pytest.raises((LinkError, DeviceError), match=r"started anew|ended in the middle"):
        list(seen)


def test_what_a_dead_host_left_in_the_spool_goes(board: Board) -> None:
    with board.connect() as device:
        session = train(device, epochs=LONG)
        assert session.id is not None
        _kill_soon(board, session, 10)
    left = board.folder(session.id) / "spool" / "4711.part"
    left.write_bytes(bytes(100))
    with board.connect() as device:
        (kept,) = device.sessions.list()
        assert kept.state == "interrupted"
        again = device.sessions.resume(session.id, data=data())
        assert not left.exists()
        again.stop()


def test_another_data_set_is_refused_and_harms_nothing(board: Board) -> None:
    losses, weights = expected()
    with board.connect() as device:
        session = train(device)
        leave(session)
        assert session.id is not None
        for go_on in (device.sessions.attach, device.sessions.resume):
            with pytest.raises(DataError, match="another data set"):
                go_on(session.id, "wrong", data(seed=2))
        with pytest.raises(InputError, match="is streamed"):
            device.sessions.resume(session.id)
        assert not Path("wrong").exists()
        again = device.sessions.attach(session.id, data=data())
        again.result()
        check(again, losses, weights)


def test_data_for_a_session_that_has_it(board: Board) -> None:
    with board.connect() as device:
        session = train(device, stream=False, spool=None, epochs=LONG)
        assert session.id is not None
        with pytest.raises(InputError, match="is on the board"):
            device.sessions.attach(session.id, "again", data())
        session.stop()


class Noisy:
    """Changes a byte of some shards on their way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changed: set[int] = set()  #: calls
        self.calls = itertools.count()
        bring = LocalLink.bring

        def noisy(link: LocalLink, shard: bytes, remote: str, deadline: Deadline) -> Iterator[None]:
            flipped = bytes([shard[200] ^ 4]) if next(self.calls) in self.changed else shard[200:201]
            return bring(link, shard[:200] + flipped + shard[201:], remote, deadline)

        monkeypatch.setattr(LocalLink, "bring", noisy)


def test_a_shard_that_arrives_changed_is_brought_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = Noisy(monkeypatch)
    noisy.changed = {0, 7, 8, 30}
    with board.connect() as device:
        session = train(device)
        session.result()
        check(session, *expected())


def test_one_that_always_arrives_changed_is_given_up(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, weights = expected()
    noisy = Noisy(monkeypatch)
    noisy.changed = set(range(10, 1000))
    with board.connect() as device:
        session = train(device)
        with pytest.raises(IntegrityError, match="arrived changed 3 times"):
            session.result()
        assert session.id is not None
        assert len(session.records) <= 10
        noisy.changed = set()
        again = device.sessions.resume(session.id, data=data())
        again.result()
        check(again, losses, weights)


@pytest.mark.slow
@pytest.mark.parametrize("answered", [False, True], ids=["request lost", "answer lost"])
def test_a_cut_at_any_message_loses_and_doubles_nothing(board: Board, answered: bool) -> None:
    losses, weights = expected(epochs=2)
    for message in itertools.count(2):  # the first one opens the link
        with board.connect(message, answered) as device:
            session = train(device, epochs=2, spool=8000)
            session.result()
            check(session, losses, weights)
            uncut = device.client.link._left[0] > 0  # type: ignore[attr-defined]
        if uncut:
            break
    assert message > 30


def test_options_that_exclude_each_other(board: Board) -> None:
    from edgekit.sessions import OnBoard

    with board.connect() as device:
        with pytest.raises(InputError, match="nothing to stream"):
            device.train(classifier(), OnBoard("/data"), stream=True, run_dir="one")
        with pytest.raises(InputError, match="two shards of one step"):
            train(device, spool=100)
