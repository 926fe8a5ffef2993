"""A board in trouble: two hosts, a full disk, a read-only home, a host that is stopped. The right error, and soon."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import BusyError, DeviceError, EdgekitError, StorageError
from edgekit.links.ssh.errors import RemoteDiskFull, RemoteReadOnly
from edgekit.protocol import Client, client
from tests.host.home import wait_for
from tests.remote.board import Remote, recover, within
from tests.remote.training import FOR_EVER, PROGRAM, check, data, train, undisturbed
from tests.support.boards import flash
from tests.support.disks import remount, small_disk

PAGE = 4096


# ---- two hosts ----


def test_the_second_host_is_told_what_runs_and_how_to_watch_it(remote: Remote) -> None:
    with remote.connect() as first, remote.connect() as second:
        session = train(first, FOR_EVER)
        with within(5), pytest.raises(BusyError) as caught:
            train(second)
        assert f"session {session.id} is running" in caught.value.message
        for command in ("sessions", "attach", "stop"):
            assert f"edgekit {command} {remote.address}" in caught.value.hint
        with pytest.raises(BusyError):
            second.evaluate(session.program, {"inputs": [[0.0] * 3] * 4, "targets": [0] * 4})
        assert second.sessions.stop(session.id)
        session.result()
        assert session.ended_as == "stopped"
        assert not second.sessions.stop()
        again = train(second)
        again.result()
        check(again)


def test_both_hosts_watch_one_session(remote: Remote) -> None:
    with remote.connect() as first, remote.connect() as second:
        session = train(first)
        assert session.id is not None
        other = second.sessions.attach(session.id, "elsewhere")
        watching = threading.Thread(target=other.result)
        watching.start()
        session.result()
        watching.join(30)
        check(session)
        check(other)
        assert other.folder != session.folder


@pytest.mark.parametrize("asked", ["status", "metrics"])
def test_no_host_gets_the_metrics_of_another(remote: Remote, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Between the end of an evaluation and the question how it went, another host evaluates, with other data."""
    with remote.connect() as first, remote.connect() as second:
        plain, status = getattr(Client, asked), Client.status

        def late(this: Client, *arguments: Any) -> Any:
            if this is first.client:
                monkeypatch.setattr(Client, asked, plain)
                wait_for(lambda: status(second.client).state == "done")
                second.evaluate(PROGRAM, {name: array[:4] for name, array in data().items()})
            return plain(this, *arguments)

        mine = first.evaluate(PROGRAM, data())
        monkeypatch.setattr(Client, asked, late)
        with pytest.raises(DeviceError, match="another"):
            first.evaluate(PROGRAM, data())
        assert first.evaluate(PROGRAM, data()) == mine


# ---- a full disk ----


class SmallDisk:
    """The board's home on a file system of its own, whose free room can be set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def leave(self, pages: int) -> None:
        """Fill it up but for so many pages."""
        self.empty()
        facts = os.statvfs(self.path)
        self._filler.write_bytes(bytes(facts.f_bavail * facts.f_frsize - pages * PAGE))

    def empty(self) -> None:
        self._filler.write_bytes(b"")


@pytest.fixture
def disk(bare: Remote) -> Iterator[SmallDisk]:
    with contextlib.ExitStack() as mounted:
        mounted.enter_context(small_disk(bare.home.path, 4096, "nr_inodes=200"))
        flash(bare.address)
        yield SmallDisk(bare.home.path)
        bare.home.close()


def failure_of(remote: Remote, **options: Any) -> EdgekitError | None:
    """A whole session; what it ends with."""
    try:
        with remote.connect() as device:
            session = train(device, **options)
            session.result()
            check(session)
    except EdgekitError as error:
        return error
    return None


def is_disk_full(error: EdgekitError) -> bool:
    return isinstance(error, StorageError) and ("No space left" in error.message or "disk is full" in error.message)


#: what the message names, the special before the general
_PHASES = ("checkpoint", "records", "request", "store", "needs", "sessions")


@pytest.mark.slow
def test_a_full_disk_at_every_phase(bare: Remote, disk: SmallDisk) -> None:
    """With 0, 1, 2 … free pages it fails a little later: in the upload, at the start, at a record, a checkpoint, the result."""
    undisturbed()
    phases = set()
    for free in range(40):
        bare.forget_uploads()
        disk.leave(free)
        with within(10):
            error = failure_of(bare, checkpoint_every=20)
        disk.empty()
        if error is not None:
            assert is_disk_full(error), error
            phases.add(next(w for w in _PHASES if w in error.message))
        with bare.connect() as device:
            for kept in device.sessions.list():
                if kept.state == "failed":
                    resumed = device.sessions.resume(kept.id, f"resumed-{kept.id}")
                    resumed.result()
                    check(resumed)
                device.sessions.remove(kept.id)
        recover(bare)
        with bare.connect() as device:
            for kept in device.sessions.list():
                device.sessions.remove(kept.id)
        if error is None:
            break
    assert free > 4
    assert len(phases) >= 3, phases


def test_a_full_disk_when_the_host_starts(bare: Remote, disk: SmallDisk) -> None:
    """Neither a lock nor a log can be made."""
    bare.home.kill()
    shutil.rmtree(disk.path / "run")
    fillers = []
    with contextlib.suppress(OSError):
        while True:  # no inode is left
            fillers.append(disk.path / f"file-{len(fillers)}")
            fillers[-1].touch()
    with within(10), pytest.raises(StorageError, match="No space left") as caught:
        bare.connect()
    assert isinstance(caught.value, RemoteDiskFull)
    assert "free some space" in caught.value.hint
    for file in fillers:
        file.unlink(missing_ok=True)
    recover(bare)


# ---- a home that cannot be written ----


def test_a_read_only_home_without_a_host(bare: Remote, disk: SmallDisk) -> None:
    bare.home.kill()
    remount(disk.path, "ro")
    with within(10), pytest.raises(StorageError, match="Read-only file system") as caught:
        bare.connect()
    assert isinstance(caught.value, RemoteReadOnly)
    remount(disk.path, "rw")
    recover(bare)


def test_a_home_that_becomes_read_only_under_a_host(bare: Remote, disk: SmallDisk) -> None:
    """The host holds its log, so the kernel refuses a remount while a file is open to write: it is another mount that turns."""
    with bare.connect() as device:
        train(device).result()  # what is sent is there
        with read_only(disk.path / "sessions"):
            with within(10), pytest.raises(StorageError, match="Read-only file system"):
                train(device)
            assert device.info.home is not None
            assert len(device.sessions.list()) == 1
        with read_only(disk.path / "store"):
            bare.forget_uploads()
            fresh = {"inputs": [[0.5] * 3] * 4, "targets": [1] * 4}
            with within(10), pytest.raises(RemoteReadOnly):
                device.train(PROGRAM, fresh)
        session = train(device)
        session.result()
        check(session)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


# ---- a host that is stopped, or stuck ----


def test_a_stopped_host_goes_on_when_somebody_attaches(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits for its answer is told, attaches anew, which continues the host, and nothing is lost."""
    monkeypatch.setattr(client, "_PAUSE", 0.02)
    with within(client.SECONDS / 2), remote.connect() as device:
        session = train(device)
        records = iter(session)
        next(records)
        os.kill(remote.home.holder(), signal.SIGSTOP)
        for _ in records:
            pass
        check(session)
    assert "the session host was stopped by a signal" in caplog.text


@pytest.mark.slow
def test_a_host_stopped_again_and_again(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops it while it trains: stop and start answer, and another host may train."""
    monkeypatch.setattr(client, "_PAUSE", 0.02)
    with within(client.SECONDS), remote.connect() as device:
        session = train(device, FOR_EVER)
        for _ in range(3):
            os.kill(remote.home.holder(), signal.SIGSTOP)
            assert device.sessions.list()[-1].state == "running"
        os.kill(remote.home.holder(), signal.SIGSTOP)
        session.stop()
        assert session.ended_as == "stopped"
        assert [r.step for r in session.records] == list(range(1, len(session.records) + 1))
    recover(remote)
