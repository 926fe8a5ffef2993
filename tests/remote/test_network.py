"""A board at the end of a bad line: flashing and training work, and every record comes home exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgekit
from edgekit.protocol import client
from tests.remote.training import check, train, undisturbed
from tests.support.boards import Start, flash, know
from tests.support.network import Namespace, Netem, Relay, Trouble

pytestmark = pytest.mark.slow

LINES = {
    "far and lossy": Trouble(delay=0.05, loss=0.05),
    "out of order": Trouble(delay=0.02, reorder=0.25, duplicate=0.1),
    "narrow": Trouble(delay=0.02, rate=200e3),
}


@dataclass(frozen=True)
class Far:
    """A board in a network namespace, and the line to it."""

    address: str
    line: Relay | Netem


@pytest.fixture(params=[Relay, Netem])
def far(request: pytest.FixtureRequest, start: Start, me: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    monkeypatch.chdir(tmp_path)
    place = Namespace()
    try:
        line = request.param(place)
        server = start(host=place.there, enter=place.enter)
        know(me, server)
        yield Far(server.address, line)
        line.close()
    finally:
        place.remove()


@pytest.mark.parametrize("trouble", LINES.values(), ids=LINES.keys())
def test_a_bad_line(far: Far, trouble: Trouble) -> None:
    far.line.make(trouble)
    flash(far.address)
    with edgekit.connect(far.address, threads=1) as device:
        session = train(device)
        session.result()
        check(session)


@pytest.mark.parametrize("seconds", [5, client.SECONDS + 10], ids=["soon", "after the connection was given up"])
def test_a_line_that_is_silent_for_a_while(far: Far, seconds: float) -> None:
    undisturbed()
    flash(far.address)
    with edgekit.connect(far.address, threads=1) as device:
        session = train(device)
        far.line.cut()
        healing = threading.Timer(seconds, far.line.make, [Trouble()])
        healing.start()
        begin = time.monotonic()
        session.result()
        assert time.monotonic() - begin > seconds - 1
        healing.join()
        check(session)


def test_a_line_that_is_silent_during_the_upload(far: Far) -> None:
    far.line.make(Trouble(rate=500e3))  # a runner takes two seconds
    silence = [threading.Timer(1, far.line.cut), threading.Timer(6, far.line.make, [Trouble()])]
    for timer in silence:
        timer.start()
    flash(far.address)
    for timer in silence:
        timer.join()
    with edgekit.connect(far.address, threads=1) as device:
        session = train(device)
        session.result()
        check(session)
