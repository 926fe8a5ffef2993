"""The board's disk breaks under its host: the cause is told, soon; once it is sound, the session ends as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgekit.errors import StorageError
from edgekit.links.ssh.errors import RemoteFileError
from tests.remote.board import Remote, recover, within
from tests.remote.training import PROGRAM, check, train, undisturbed
from tests.support.boards import flash
from tests.support.disks import MemoryCard

LONG = 700  #: epochs; with a checkpoint every other step long enough to break the disk in the middle
BROKEN = "Read-only file system|mounted read-only|I/O error|turn read-only after a fault"
FRESH = {"inputs": [[0.5] * 3] * 4, "targets": [1] * 4}  #: data that was never sent


@pytest.fixture
def card(bare: Remote) -> Iterator[MemoryCard]:
    """The board's home on a memory card."""
    made = MemoryCard(bare.home.path, 32)
    try:
        flash(bare.address)
        yield made
    finally:
        bare.home.close()
        made.throw_away()


def test_read_only_under_an_idle_host(bare: Remote, card: MemoryCard) -> None:
    with bare.connect() as device:
        train(device).result()
        card.find_fault()
        with within(10), pytest.raises(StorageError, match=BROKEN):
            train(device)
        with within(10), pytest.raises(RemoteFileError, match=BROKEN):
            device.train(PROGRAM, FRESH)
        (kept,) = device.sessions.list()
        check(device.sessions.fetch(kept.id, "fetched"))  # what is there can be read
    with within(10), bare.connect() as device:
        assert device.sessions.list() == [kept]
    bare.home.kill()
    card.take_out()
    card.put_in()
    recover(bare)


@pytest.mark.parametrize("fault", ["find_fault", "wear_out"], ids=["read-only", "writes fail"])
def test_under_a_session(bare: Remote, card: MemoryCard, fault: str) -> None:
    undisturbed(LONG)
    with bare.connect() as device:
        session = train(device, LONG, checkpoint_every=2)
        next(records := iter(session))
        getattr(card, fault)()
        with within(10), pytest.raises(StorageError, match=BROKEN):
            list(records)
        assert session.ended_as == "failed"
    bare.home.kill()
    card.take_out()
    if fault == "wear_out":
        card.copy()
    card.put_in()
    with bare.connect() as device:
        resumed = device.sessions.resume(str(session.id), "resumed")
        resumed.result()
        check(resumed, LONG)
