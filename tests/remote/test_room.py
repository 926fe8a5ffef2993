"""A board's disk: edgekit keeps within its budget, clears up where the disk is full, and removes nothing that anybody needs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit
from edgekit.errors import BoardFull, EdgekitError
from edgekit.protocol import Client, Started, StartRequest, client
from edgekit.sessions.room import Room
from edgekit.sessions.usage import Rules, Verdict
from tests.host.home import wait_for
from tests.remote.board import Remote
from tests.remote.training import FOR_EVER, PROGRAM, check, data, train
from tests.support.boards import flash
from tests.support.command import Run, document
from tests.support.disks import small_disk

AT_ONCE = Rules(unused=0)  #: what was just used may go too: no other host is there
KIB = 1024


def room_of(device: edgekit.Device, rules: Rules = AT_ONCE) -> Room:
    assert device.room is not None
    device.room.rules = rules
    return device.room


def clean(device: edgekit.Device, rules: Rules = AT_ONCE) -> dict[str, Verdict]:
    """What stayed, by path."""
    room = room_of(device, rules)
    room.remove(room.judge(room.look()))
    return {verdict.entry.path: verdict for verdict in room.judge(room.look())}


def done(device: edgekit.Device, **options: Any) -> str:
    """A session that is done and at home; its id."""
    session = train(device, **options)
    session.result()
    check(session)
    assert session.id is not None
    return session.id


def noise(folder: Path, kilobytes: int, seed: int) -> Path:
    """A file of bytes that no other has."""
    path = folder / f"noise-{seed}"
    path.write_bytes(np.random.default_rng(seed).bytes(kilobytes * KIB))
    return path


def store(remote: Remote) -> set[str]:
    return {path.name for path in (remote.home.path / "store").iterdir()}


# ---- what goes, and what stays ----


def test_what_is_done_and_at_home_goes_with_all_that_it_needed(remote: Remote) -> None:
    with remote.connect() as device:
        session = done(device)
        assert [k.fetched for k in device.sessions.list()] == [True]
        assert len(store(remote)) == 4, "a program, two arrays, a data set"
        assert set(clean(device, Rules())) >= {f"sessions/{session}"}, "it was just used"
        left = clean(device)
        assert device.sessions.list() == []
    assert store(remote) == set()
    assert {verdict.entry.kind for verdict in left.values()} == {"releases", "log", "other"}
    with remote.connect() as device:
        done(device)


def test_what_somebody_may_need_stays(remote: Remote) -> None:
    """A session that runs, one to be resumed, one that was not fetched, and whatever they need."""
    with remote.connect() as device:
        fetched = done(device)
        unfetched = device.train(PROGRAM, other_data(1), epochs=2, reset=True)
        unfetched.detach()
        wait_for(lambda: device.sessions.list()[-1].state == "done")
        stopped = device.train(PROGRAM, other_data(2), epochs=FOR_EVER, reset=True)
        next(iter(stopped))
        stopped.stop()
        assert stopped.id is not None
        running = train(device, FOR_EVER)
        before = store(remote)
        left = clean(device)
        assert {k.id for k in device.sessions.list()} == {unfetched.id, stopped.id, running.id}
        assert f"sessions/{fetched}" not in left
        assert left[f"sessions/{unfetched.id}"].why == "not fetched"
        assert left[f"sessions/{stopped.id}"].why == "stopped: it can be resumed"
        assert left[f"sessions/{running.id}"].why == "running"
        assert len(before - store(remote)) == 2, "of the one that was not fetched: its inputs, its data set"
        assert all("needs it" in v.why or "data set" in v.why for v in left.values() if v.entry.kind == "store")
        device.sessions.stop(running.id)
        wait_for(lambda: device.sessions.list()[-1].state == "stopped")
        assert device.sessions.fetch(unfetched.id or "", "fetched").ended_as == "done"
        again = device.sessions.resume(stopped.id, "resumed")
        next(iter(again))


def other_data(seed: int) -> dict[str, Any]:
    given = data()
    return given | {"inputs": given["inputs"] + seed}


def test_a_session_stays_where_another_one_begins_with_its_parameters(remote: Remote) -> None:
    with remote.connect() as device:
        first = done(device)
        device.train(PROGRAM, data(), epochs=1).result()
        second = device.train(PROGRAM, data(), epochs=FOR_EVER)  # from what the one before left
        second.detach()
        third = device.sessions.list()[-2].id
        left = clean(device)
        assert f"sessions/{first}" not in left
        assert left[f"sessions/{third}"].why == f"session {second.id} needs it"
        remote.home.kill()
    with remote.connect() as device:
        clean(device)
        resumed = device.sessions.resume(second.id or "")
        next(iter(resumed))
        resumed.stop()


def test_all_that_has_ended_goes_where_that_is_asked_for(remote: Remote) -> None:
    with remote.connect() as device:
        train(device, 2).detach()
        wait_for(lambda: device.sessions.list()[-1].state == "done")
        train(device, FOR_EVER).stop()
        wait_for(lambda: device.sessions.list()[-1].state == "stopped")
        running = train(device, FOR_EVER)
        clean(device, Rules(unused=0, all_finished=True))
        assert [k.id for k in device.sessions.list()] == [running.id]
        running.stop()


def test_releases_that_no_link_leads_to_go(remote: Remote) -> None:
    old = remote.home.path / "releases" / ("0" * 64)
    old.mkdir()
    (old / "edgekit-runner").write_bytes(b"old")
    with remote.connect() as device:
        left = clean(device)
        assert [path for path in left if path.startswith("releases/")] == [str((remote.home.path / "current").readlink())]
        done(device)


def test_what_a_cut_left_goes(remote: Remote) -> None:
    for folder in ("store/x.data.part", "store/y.data.gone", "sessions/no-request", "work/run"):
        (remote.home.path / folder).mkdir(parents=True)
        (remote.home.path / folder / "some").symlink_to("../z")
    (remote.home.path / "store" / "z.part").write_bytes(bytes(5000))
    with remote.connect() as device:
        left = clean(device)
        assert not [verdict for verdict in left.values() if verdict.entry.kind in ("store", "sessions", "work")]


def test_parameters_that_were_cleared_away_are_sent_again(remote: Remote) -> None:
    with remote.connect() as device, remote.connect() as other:
        session = train(device)
        session.result()
        accuracy = device.evaluate(PROGRAM, data())
        clean(other)
        assert other.sessions.list() == []
        assert device.evaluate(PROGRAM, data()) == accuracy


# ---- the budget ----


def test_within_a_budget_the_longest_unused_goes_first(remote: Remote, tmp_path: Path) -> None:
    with remote.connect() as device:
        used = room_of(device).look().used
    files = [noise(tmp_path, 400, seed) for seed in range(4)]
    with edgekit.connect(remote.address, threads=1, budget=used + 1000 * KIB) as device:
        room = room_of(device)
        paths = []
        for file in files[:2]:
            paths.append(Path(room.put(file)))
            time.sleep(1.1)  # use counts in seconds
        room.put(files[0])  # used once more: the other one is older now
        time.sleep(1.1)
        paths.append(Path(room.put(files[2])))
        assert [path.exists() for path in paths] == [True, False, True]
        assert room.look().used <= used + 1000 * KIB


def test_then_the_oldest_sessions_go(remote: Remote, tmp_path: Path) -> None:
    with remote.connect() as device:
        for _ in range(4):
            device.train(PROGRAM, data(), epochs=1, reset=True).result()
        room = room_of(device)
        names = [k.id for k in device.sessions.list()]
        clean(device, Rules())
        sizes = {verdict.entry.path: verdict.entry.bytes for verdict in room.judge(room.look())}
        room.rules = AT_ONCE
        unneeded = [v.entry for v in room.judge(room.look()) if v.goes and v.entry.kind == "store" and "only" not in v.why]
        size = sum(entry.bytes for entry in unneeded) + sizes[f"sessions/{names[0]}"] + sizes[f"sessions/{names[1]}"]
    with edgekit.connect(remote.address, threads=1, budget=sum(sizes.values())) as device:
        room_of(device).put(noise(tmp_path, size // KIB, 0))
        assert [k.id for k in device.sessions.list()] == names[2:]


def test_what_a_budget_does_not_allow_is_refused_with_what_is_kept(remote: Remote, tmp_path: Path) -> None:
    with remote.connect() as device:
        train(device, FOR_EVER).stop()
        used = room_of(device).look().used
    with edgekit.connect(remote.address, threads=1, budget=used + 100 * KIB) as device:
        room = room_of(device)
        room.put(noise(tmp_path, 90, 0))
        with pytest.raises(BoardFull, match=r"takes 0\.2 MiB, and .* of the budget of .* MiB are taken") as caught:
            room.put(noise(tmp_path, 200, 1))
        assert "releases" in caught.value.message
        assert f"edgekit clean {remote.address}" in caught.value.hint
        assert "--budget" in caught.value.hint


# ---- a full disk ----


def test_a_full_disk_is_cleared_up(bare: Remote) -> None:
    """Trainings whose data together do not fit, one after the other."""
    with small_disk(bare.home.path, 4 << 10):
        flash(bare.address)
        with bare.connect() as device:
            room_of(device)
            for seed in range(5):
                device.train(PROGRAM, large_data(seed), steps=2).result()
            assert len(device.sessions.list()) == 5, "a session that is done can do without its data"
        bare.home.close()


def test_room_is_made_before_data_is_streamed(bare: Remote, tmp_path: Path) -> None:
    """What is free is too little for the data set; with what nobody needs it is enough."""
    with small_disk(bare.home.path, 24 << 10):
        flash(bare.address)
        with bare.connect() as device:
            room_of(device).put(noise(tmp_path, 10 << 10, 0))
            device.train(PROGRAM, large_data(0, 400_000), steps=2).result()
            assert [k.stream for k in device.sessions.list()] == [None]
        bare.home.close()


def large_data(seed: int, samples: int = 40_000) -> dict[str, Any]:
    """Some 800 KiB."""
    rng = np.random.default_rng(seed)
    return {"inputs": rng.normal(size=(samples, 3)).astype(np.float32), "targets": rng.integers(0, 2, samples)}


@pytest.mark.slow
def test_a_disk_that_stays_full_is_told_with_what_is_kept(bare: Remote) -> None:
    with small_disk(bare.home.path, 4 << 10):
        flash(bare.address)
        with bare.connect() as device:
            room_of(device)
            with pytest.raises(BoardFull, match=r"No space left.*needed: .* MiB are free, and what is kept") as caught:
                stop_many(device)
            assert "files that sessions need" in caught.value.message
            assert f"edgekit clean {bare.address}" in caught.value.hint
            names = [k.id for k in device.sessions.list()]
            assert names, "what can be resumed stays"
            clean(device, Rules(unused=0, all_finished=True))
            device.train(PROGRAM, large_data(99), steps=2, reset=True).result()
        bare.home.close()


def test_a_start_on_a_full_disk_clears_up_and_is_tried_again(
    bare: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent is there; the session's own files find no room until something nobody needs is gone."""
    start, starts = Client.start, 0

    def start_on_a_full_disk(self: Client, request: StartRequest) -> Started:
        nonlocal starts
        starts += request.session is not None
        if starts == 1:
            facts = os.statvfs(bare.home.path)
            (bare.home.path / "filler").write_bytes(bytes(facts.f_bavail * facts.f_frsize))
        return start(self, request)

    with small_disk(bare.home.path, 4 << 10):
        flash(bare.address)
        with bare.connect() as device:
            room = room_of(device, Rules(unused=3))
            file = Path(room.put(noise(tmp_path, 300, 0)))
            time.sleep(4.1)
            monkeypatch.setattr(Client, "start", start_on_a_full_disk)
            done(device)
            assert (starts, file.exists()) == (2, False)
        bare.home.close()


def stop_many(device: edgekit.Device) -> None:
    """More trainings to be resumed than have room."""
    for seed in range(12):
        device.train(PROGRAM, large_data(seed), epochs=FOR_EVER, stream=False).stop()
        wait_for(lambda: device.sessions.list()[-1].state == "stopped")


# ---- two hosts ----


@pytest.mark.slow
def test_what_another_host_sends_is_not_cleared_away(remote: Remote, tmp_path: Path) -> None:
    """Its first array is there, and the second one under way: nothing needs either yet but the data set that will be."""
    arrays = tmp_path / "data"
    arrays.mkdir()
    given = large_data(0, 1_000_000)
    np.save(arrays / "inputs.npy", given["inputs"].astype(np.uint8))
    np.save(arrays / "targets.npy", given["targets"])
    first = hashlib.sha256((arrays / "inputs.npy").read_bytes()).hexdigest()
    second = hashlib.sha256((arrays / "targets.npy").read_bytes()).hexdigest()
    with remote.connect() as device, remote.connect() as other:
        device.client.parameters()  # attached before the line gets slow
        remote.proxy.delay = 0.05
        session: list[edgekit.Session] = []
        sending = threading.Thread(target=lambda: session.append(device.train(PROGRAM, arrays, steps=2)))
        sending.start()
        wait_for(lambda: (remote.home.path / "store" / f"{second}.part").exists())
        assert not other.client.discard(f"store/{first}", 0), "the unfinished data set links to it"
        assert clean(other, Rules()).keys() >= {f"store/{first}", f"store/{second}.part"}
        (folder,) = (remote.home.path / "store").glob("*.data.part")
        wait_for(lambda: time.time() - folder.lstat().st_ctime > 4)
        assert not other.client.discard(f"store/{folder.name}", 3), "a file of it is under way"
        assert sending.is_alive()
        remote.proxy.delay = 0
        sending.join(60)
        assert session[0].result().steps == 2


def test_two_hosts_clear_up_at_once_while_a_third_one_trains(remote: Remote) -> None:
    with remote.connect() as device:
        for seed in range(4):
            device.train(PROGRAM, other_data(seed), epochs=1, reset=True).result()
        keeper = train(device, FOR_EVER)
        left: list[dict[str, Verdict]] = []

        def clear_up() -> None:
            with remote.connect() as other:
                left.append(clean(other))

        threads = [threading.Thread(target=clear_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [set(one) & {f"sessions/{keeper.id}"} for one in left] == [{f"sessions/{keeper.id}"}] * 2
        assert [k.id for k in device.sessions.list()] == [keeper.id]
        keeper.stop()
        assert keeper.id is not None
        again = device.sessions.resume(keeper.id)
        next(iter(again))
        again.stop()


# ---- cut while clearing up ----


def some_sessions(device: edgekit.Device) -> str:
    """Three that may go, each with data of its own, and one that may not; its id."""
    for seed in range(3):
        device.train(PROGRAM, other_data(seed), epochs=1, reset=True).result()
    stopped = device.train(PROGRAM, other_data(9), epochs=FOR_EVER, reset=True)
    stopped.stop()
    assert stopped.id is not None
    return stopped.id


def sound(remote: Remote, stopped: str) -> None:
    """Each session is there whole or not at all, each data set too, and what is there works."""
    for folder in (remote.home.path / "sessions").iterdir():
        if (folder / "request").exists():
            assert {"records", "checkpoint.ekc", "result"} <= {path.name for path in folder.iterdir()}
    for folder in (remote.home.path / "store").glob("*.data"):
        assert {link.name for link in folder.iterdir()} == {"inputs.npy", "targets.npy"}
        assert all(link.exists() for link in folder.iterdir())
    with remote.connect() as device:
        resumed = device.sessions.resume(stopped, f"again-{time.monotonic_ns()}")
        next(iter(resumed))
        resumed.stop()


@pytest.mark.slow
def test_the_link_cut_at_every_removal(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened again, and the rest is removed."""
    monkeypatch.setattr(client, "_PAUSE", 0.02)
    with remote.connect() as device:
        stopped = some_sessions(device)
        cut = Client.discard

        def discard(self: Client, path: str, unused: int) -> bool:
            remote.proxy.cut()
            return cut(self, path, unused)

        monkeypatch.setattr(Client, "discard", discard)
        left = clean(device)
    assert [path for path in left if path.startswith("sessions/")] == [f"sessions/{stopped}"]
    sound(remote, stopped)


@pytest.mark.slow
def test_the_board_cut_off_while_it_removes(remote: Remote) -> None:
    """Killed at some moment, again and again: what is left is sound, and the next time removes the rest."""
    rng = random.Random(0)
    for _ in range(12):
        with remote.connect() as device:
            stopped = some_sessions(device)
        killer = threading.Timer(rng.uniform(0, 0.15), remote.home.kill)
        with contextlib.suppress(EdgekitError), remote.connect() as device:
            room = room_of(device)
            verdicts = room.judge(room.look())
            killer.start()
            room.remove(verdicts)
        killer.join()
        sound(remote, stopped)
        with remote.connect() as device:
            left = clean(device)
            assert [path for path in left if path.startswith("sessions/")] == [f"sessions/{stopped}"]
            device.sessions.remove(stopped)


# ---- the command ----


def test_the_command_shows_and_then_removes(remote: Remote, edgekit: Run) -> None:
    with remote.connect() as device:
        session = done(device)
    code, out, _ = edgekit("clean", remote.address, "--dry-run", "--unused", "0", "--json")
    shown = document(out)
    rows = {row["path"]: row for row in shown["entries"]}
    assert (code, shown["dry_run"], shown["freed"]) == (0, True, 0)
    assert shown["used"] == sum(row["bytes"] for row in rows.values())
    assert (rows[f"sessions/{session}"]["goes"], rows[f"sessions/{session}"]["why"]) == (True, "done and fetched")
    assert rows[str((remote.home.path / "current").readlink())]["why"] == "the current release"
    code, out, _ = edgekit("clean", remote.address)
    assert (code, "removed 0" in out, "used 0 min ago" in out) == (0, True, True)
    code, out, _ = edgekit("clean", remote.address, "--unused", "0", "--json")
    removed = document(out)
    assert {row["path"] for row in removed["entries"] if row["removed"]} == {p for p, row in rows.items() if row["goes"]}
    assert removed["freed"] == sum(row["bytes"] for row in rows.values() if row["goes"])
    assert store(remote) == set()


def test_this_machine_has_nothing_to_clean(edgekit: Run) -> None:
    code, _, err = edgekit("clean", "local")
    assert code == 2
    assert "stores nothing" in err
