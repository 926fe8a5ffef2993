"""The link cut at every message, at every file operation, and in the middle of bytes: each session ends as if undisturbed."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from edgekit import Metrics, connect
from edgekit.errors import LinkLost
from edgekit.links.ssh import Connection
from edgekit.links.ssh.stream import Stream
from edgekit.protocol import client
from edgekit.sessions import session as sessions
from tests.remote.board import Peak, Remote, bound
from tests.remote.training import PROGRAM, STREAMED, check, data, train, undisturbed
from tests.support.proxy import Proxy

WORST = 20.0  #: seconds for a session that is cut once


@pytest.fixture(autouse=True)
def many_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records come in several messages, and a lost link is opened again soon."""
    undisturbed()
    monkeypatch.setattr(sessions, "_AT_ONCE", 32)
    monkeypatch.setattr(client, "_PAUSE", 0.02)


class Cutter:
    """Cuts the link at the ``at``-th thing that is sent: before it, or after it and before its answer is read."""

    def __init__(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proxy = proxy
        self.at = self.count = 0
        self.late = False
        self._lock = threading.Lock()
        monkeypatch.setattr(Stream, "send", self._around(Stream.send, waits=False))
        # a command: the runner's, or `digest`
        monkeypatch.setattr(Connection, "start", self._around(Connection.start, waits=True))

    def _around(self, do: Callable[..., Any], waits: bool) -> Callable[..., Any]:
        """``waits``: for an answer of the server's, without which there is nothing to be cut."""

        def call(*arguments: Any) -> Any:
            with self._lock:
                self.count += 1
                now = self.count == self.at
            if now and not self.late:
                self.proxy.cut()
            if now and self.late and not waits:
                self.proxy.mute = True
            result = do(*arguments)
            if now and self.late:
                time.sleep(0.03)  # the board has done it by then
                self.proxy.cut()
                self.proxy.mute = False
            return result

        return call

    def arm(self, at: int, late: bool) -> None:
        self.at, self.late, self.count = at, late, 0


def complete(remote: Remote, **options: Any) -> None:
    """One whole training, which nobody helps."""
    begin = time.monotonic()
    with remote.connect() as device:
        before = {s.id for s in device.sessions.list()}
        with Peak(remote.home.path) as peak:
            session = train(device, **options)
            session.result()
        check(session)
        assert not options or 0 < peak.bytes <= bound(session)
        assert {s.id for s in device.sessions.list()} - before == {session.id}, "it was started once"
    assert time.monotonic() - begin < WORST


def evaluate(remote: Remote) -> None:
    """One whole evaluation of shards, which nobody helps; nothing of it stays."""
    begin = time.monotonic()
    with remote.connect() as device:
        assert device.evaluate(PROGRAM, data(), stream=True, spool=4000) == evaluated()
    assert not [path for path in remote.home.path.glob("work/*/*") if path.name.split(".")[0].isdigit()]
    assert time.monotonic() - begin < WORST


@cache
def evaluated() -> Metrics:
    with connect("local", threads=1) as device:
        return device.evaluate(PROGRAM, data())


def sweep(
    remote: Remote,
    cutter: Cutter,
    points: Callable[[int], Any],
    late: bool,
    work: Callable[..., None] = complete,
    **options: Any,
) -> int:
    """Cut the work at each of the points in turn, until nothing is left to be cut; how many there are."""
    for at in itertools.count(1):
        if not points(at):
            continue
        remote.forget_uploads()
        cutter.arm(at, late)
        work(remote, **options)
        if cutter.count < at:
            return at
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["request lost", "answer lost"])
def test_cut_at_everything_that_is_sent(remote: Remote, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    assert sweep(remote, Cutter(remote.proxy, monkeypatch), lambda _: True, late) > 40


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["request lost", "answer lost"])
def test_cut_at_everything_that_is_sent_while_data_is_streamed(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    assert sweep(remote, Cutter(remote.proxy, monkeypatch), lambda _: True, late, **STREAMED) > 90


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["request lost", "answer lost"])
def test_cut_at_everything_that_an_evaluation_sends(remote: Remote, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    assert sweep(remote, Cutter(remote.proxy, monkeypatch), lambda _: True, late, evaluate) > 30


def test_an_evaluation_is_cut_now_and_then(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(remote, Cutter(remote.proxy, monkeypatch), lambda at: at % 7 == 5, True, evaluate)


def test_cut_now_and_then_while_data_is_streamed(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(remote, Cutter(remote.proxy, monkeypatch), lambda at: at % 41 == 7, True, **STREAMED)


def test_cut_now_and_then(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(remote, Cutter(remote.proxy, monkeypatch), lambda at: at % 29 == 3, True)


def bytes_of_a_session(remote: Remote) -> int:
    before = remote.proxy.sent
    complete(remote)
    return remote.proxy.sent - before


@pytest.mark.slow
def test_cut_in_the_middle_of_bytes(remote: Remote) -> None:
    """From the first byte of the greeting to the last one: while the link is not there yet, whoever opens it is told at once."""
    proxy, refused, at = remote.proxy, 0, 0
    whole = bytes_of_a_session(remote)
    while at < whole:
        remote.forget_uploads()
        proxy.cut_after, begin = proxy.sent + at, time.monotonic()
        healing = threading.Thread(target=heal_once_cut, args=(proxy,))
        healing.start()
        try:
            complete(remote)
        except LinkLost as error:
            assert at < 8000, error  # noqa: PT017  # what comes later must not fail
            assert time.monotonic() - begin < 5
            refused += 1
        proxy.heal()
        healing.join()
        at += 499
    assert refused < 16
    complete(remote)


def heal_once_cut(proxy: Proxy) -> None:
    while (limit := proxy.cut_after) is not None:
        if proxy.sent > limit:
            proxy.heal()
        time.sleep(0.001)
