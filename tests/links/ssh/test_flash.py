"""Flashing a real sshd's board: the plan, its steps, and that whatever cuts it, the board has a runner that works."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgekit.firmware.build import build

from edgekit.errors import BusyError, DeviceError, InputError, IntegrityError, LinkError
from edgekit.links import Deadline, Moved, native_target
from edgekit.links.ssh import Connection, SshLink, errors
from edgekit.links.ssh.runner import run
from edgekit.links.ssh.sftp import Kind, Sftp
from edgekit.protocol import Client, Info
from edgekit.sessions import connect
from edgekit.sessions.flash import Flashed, FlashFailed, execute
from edgekit.sessions.flash_events import Event, Started
from edgekit.sessions.flash_plan import Plan, Prune, Switch, Upload, plan_flash, plan_rollback
from tests.host.home import Home
from tests.runner.programs import Classifier, sample_data
from tests.support.boards import Start, know
from tests.support.disks import names, small_disk
from tests.support.proxy import Proxy
from tests.support.sshd import Sshd

pytestmark = pytest.mark.slow

SECONDS = 60.0


@pytest.fixture
def runner(tmp_path: Path, me: Path) -> Callable[[str], Path]:
    """Runners of different content by a word: this version's, or a script."""
    del me

    def make(word: str, script: str | None = None) -> Path:
        path = tmp_path / f"runner-{word}"
        content = build("runner", native_target()).read_bytes() if script is None else script.encode()
        path.write_bytes(content + f"# {word}\n".encode())
        return path

    return make


Make = Callable[..., Path]


def release_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def flash(address: str, file: Path, **options: Any) -> Flashed:
    with Connection(address) as connection:
        return execute(connection, plan_flash(connection, Deadline.after(SECONDS), file), **options)


def plan(address: str, file: Path) -> Plan:
    with Connection(address) as connection:
        return plan_flash(connection, Deadline.after(SECONDS), file)


def links(home: Path) -> tuple[str | None, str | None]:
    """Where current and previous lead to."""
    return tuple(  # type: ignore[return-value]
        (home / name).readlink().name if (home / name).is_symlink() else None for name in ("current", "previous")
    )


def works(address: str) -> bool:
    """Whether the board answers through its current release."""
    with Connection(address) as connection:
        return bool(Client(SshLink(connection, keep=True)).info().version)


def test_a_new_board(board: Sshd, address: str, runner: Make) -> None:
    file = runner("one")
    events: list[Event] = []
    before = plan(address, file)
    assert not board.home.exists(), "a plan changes nothing"
    flashed = flash(address, file, listen=events.append)
    one = release_of(file)
    assert (flashed.release, flashed.previous) == (one, None)
    assert [event.step for event in events if isinstance(event, Started)] == list(before.steps), "what is printed is what is done"
    assert before.facts.architecture in ("x86_64", "aarch64")
    assert before.facts.cores
    assert before.facts.memory
    assert before.facts.disk
    assert links(board.home) == (one, None)
    executable = board.home / "current" / "edgekit-runner"
    assert executable.read_bytes() == file.read_bytes()
    assert executable.stat().st_mode & 0o777 == 0o700
    assert board.home.stat().st_mode & 0o777 == 0o700
    assert works(address)


def test_the_real_runner_of_this_version(board: Sshd, address: str) -> None:
    with Connection(address) as connection:
        flashed = execute(connection, plan_flash(connection, Deadline.after(SECONDS)))
    assert flashed.release == release_of(build("runner", native_target()))
    assert flashed.info.home == str(board.home)


def test_the_upload_of_a_link_that_was_cut_may_end_a_little_later(board: Sshd, address: str, runner: Make) -> None:
    """The board's SFTP server has the file open for writing until it notices: the kernel does not execute it that long."""
    del board
    executable = runner("one")
    executable.chmod(0o700)
    held = executable.open("r+b")
    threading.Timer(1.0, held.close).start()
    with Connection(address) as connection:
        assert run(connection, str(executable), ["version"], Deadline.after(SECONDS)).out.startswith("edgekit-runner")
    assert held.closed


def test_a_build_may_take_longer_than_the_look_at_the_board(board: Sshd, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del board

    def slowly(*arguments: Any) -> Path:
        time.sleep(4)
        return build(*arguments)

    monkeypatch.setattr("edgekit.sessions.flash_plan.build", slowly)
    with Connection(address) as connection:
        assert plan_flash(connection, Deadline.after(3)).steps


def test_the_last_two_stay(board: Sshd, address: str, runner: Make) -> None:
    files = [runner(word) for word in ("one", "two", "three")]
    one, two, three = map(release_of, files)
    flash(address, files[0])
    flash(address, files[1])
    assert links(board.home) == (two, one)
    assert flash(address, files[2]).previous == two
    assert links(board.home) == (three, two)
    assert names(board.home / "releases") == sorted([two, three])


def test_once_more_uploads_nothing_and_keeps_the_previous(board: Sshd, address: str, runner: Make) -> None:
    flash(address, runner("one"))
    flash(address, runner("two"))
    before = links(board.home)
    again = plan(address, runner("two"))
    assert not any(isinstance(step, (Upload, Switch)) for step in again.steps)
    flash(address, runner("two"))
    assert links(board.home) == before


def test_rolling_back_and_forth(board: Sshd, address: str, runner: Make) -> None:
    one, two = release_of(runner("one")), release_of(runner("two"))
    with Connection(address) as connection:
        with pytest.raises(errors.NoRunner):
            plan_rollback(connection, Deadline.after(SECONDS))
        flash(address, runner("one"))
        with pytest.raises(InputError, match="no previous release"):
            plan_rollback(connection, Deadline.after(SECONDS))
        flash(address, runner("two"))
        for expected in ((one, two), (two, one)):
            execute(connection, plan_rollback(connection, Deadline.after(SECONDS)))
            assert links(board.home) == expected
            assert works(address)


def test_a_damaged_release_is_brought_anew(board: Sshd, address: str, runner: Make) -> None:
    file = runner("one")
    flash(address, file)
    damaged = board.home / "current" / "edgekit-runner"
    damaged.unlink()  # it runs
    damaged.write_bytes(file.read_bytes()[:-2] + b"X\n")
    with pytest.raises(IntegrityError, match="SHA-256"):
        flash(address, file)
    flash(address, file)
    assert damaged.read_bytes() == file.read_bytes()


def test_without_sha256sum_the_bytes_are_read_back(
    board: Sshd, address: str, runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Connection.run
    monkeypatch.setattr(Connection, "run", lambda self, c, d: plain(self, "exit 127" if "sha256sum" in c else c, d))
    flash(address, runner("one"))
    assert links(board.home) == (release_of(runner("one")), None)


def test_a_runner_that_fails_its_self_test_is_not_switched_to(board: Sshd, address: str, runner: Make) -> None:
    flash(address, runner("one"))
    bad = runner("bad", '#!/bin/sh\n[ "$1" = version ] && echo edgekit-runner 0 && exit\necho "no FPU"; exit 1\n')
    with pytest.raises(DeviceError, match="self-test fails: no FPU"):
        flash(address, bad)
    assert links(board.home) == (release_of(runner("one")), None)
    assert works(address)


def test_a_runner_that_does_not_answer_is_taken_back(board: Sshd, address: str, runner: Make) -> None:
    with pytest.raises(FlashFailed, match="without a runner, as before"):
        flash(address, runner("bad", NO_HOST))
    assert links(board.home) == (None, None)
    flash(address, runner("one"))
    flash(address, runner("two"))
    with pytest.raises(FlashFailed, match=r"no session host.*back on"):
        flash(address, runner("bad", NO_HOST))
    assert links(board.home) == (release_of(runner("two")), release_of(runner("one")))
    assert works(address)


def info(address: str) -> Info:
    """What the session host says, started where none runs."""
    with Connection(address) as connection:
        return Client(SshLink(connection, keep=True)).info()


def test_an_idle_host_is_asked_to_end(board: Sshd, address: str, runner: Make) -> None:
    old, new = runner("old"), runner("new")
    flash(address, old)
    before = info(address)
    flash(address, new)
    assert links(board.home) == (release_of(new), release_of(old))
    after = info(address)
    assert before.executable == str(board.home / "releases" / release_of(old) / "edgekit-runner")
    assert after.executable == str(board.home / "releases" / release_of(new) / "edgekit-runner")
    assert Home(board.home, ()).holder() == after.pid != before.pid


def test_a_host_of_the_same_release_is_left_alone(board: Sshd, address: str, runner: Make) -> None:
    del board
    flash(address, runner("one"))
    before = info(address)
    flash(address, runner("one"))
    assert info(address).instance == before.instance


def test_a_session_that_runs_is_not_ended(
    board: Sshd, address: str, runner: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = runner("old"), runner("new")
    flash(address, old)
    inputs, targets = sample_data(8)
    with connect(address, threads=1) as device:
        session = device.train(Classifier().program(), {"inputs": inputs, "targets": targets}, epochs=1 << 30)
        session.detach()
    with pytest.raises(BusyError, match="a session runs") as caught:
        flash(address, new)
    assert "--force" in caught.value.hint
    assert links(board.home) == (release_of(old), None)
    flash(address, new, force=True)
    assert links(board.home) == (release_of(new), release_of(old))
    with connect(address) as device:
        assert [(s.id, s.state) for s in device.sessions.list()] == [(session.id, "stopped")]


def test_a_noexec_disk(board: Sshd, address: str, runner: Make) -> None:
    with small_disk(board.home, 16384, "noexec", "mode=0700"), pytest.raises(errors.NoExec, match="noexec") as caught:
        flash(address, runner("one"))
    assert "EDGEKIT_HOME" in caught.value.hint


def test_a_full_disk(board: Sshd, address: str, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(3 << 20))
    with small_disk(board.home, 1024), pytest.raises(errors.RemoteDiskFull):
        flash(address, big)


def test_another_processor(board: Sshd, address: str, runner: Make, tmp_path: Path) -> None:
    file = tmp_path / "riscv"
    file.write_bytes(bytes.fromhex("7f454c460201010000000000000000000200f300") + bytes(100))
    flash(address, runner("one"))
    with pytest.raises(errors.WrongArchitecture, match="riscv64"):
        flash(address, file)
    assert links(board.home) == (release_of(runner("one")), None)


def test_a_board_that_edgekit_has_no_runner_for(board: Sshd, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del board
    monkeypatch.setattr("edgekit.sessions.flash_plan._PROBE", "printf 'edgekit=%s\\n' Linux armv7l 6.1 4 ''")
    with Connection(address) as connection, pytest.raises(errors.WrongArchitecture, match="armv7l") as caught:
        plan_flash(connection, Deadline.after(SECONDS))
    assert "64-bit" in caught.value.hint


def test_an_upload_goes_on_where_it_was_cut(board: Sshd, proxy: Proxy, through: str, runner: Make) -> None:
    file = runner("big")
    with file.open("ab") as more:
        more.write(bytes(9 << 20))

    def cut(event: Event) -> None:
        if isinstance(event, Moved) and event.done > 1 << 20:
            proxy.cut()

    with pytest.raises(errors.ConnectionLost):
        flash(through, file, listen=cut)
    part = board.home / "releases" / release_of(file) / "edgekit-runner.part"
    there = part.stat().st_size
    assert there > 1 << 20
    sent = proxy.sent
    flash(through, file)
    assert proxy.sent - sent < file.stat().st_size - there + (1 << 18)
    assert links(board.home) == (release_of(file), None)


def test_what_lies_around_is_removed_but_not_what_another_uploads(board: Sshd, address: str, runner: Make) -> None:
    releases = board.home / "releases"
    for name, content in (("a" * 64, "edgekit-runner"), ("b" * 64, "edgekit-runner.part")):
        (releases / name).mkdir(parents=True)
        (releases / name / content).write_text("x")
    (board.home / ".current.12345678").symlink_to("nowhere")
    made = plan(address, runner("one"))
    assert isinstance(made.steps[-1], Prune)
    flash(address, runner("one"))
    assert names(releases) == sorted([release_of(runner("one")), "b" * 64])
    assert not (board.home / ".current.12345678").is_symlink()


class Cut:
    """Cuts the connection right after the ``number``-th remote operation was done: its answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number, self.count = 0, 0
        for owner, name in ((Sftp, "_exchange"), (Sftp, "submit"), (Connection, "run"), (Client, "_ask")):
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name), name))

    def _wrap(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(this: Any, *args: Any, **options: Any) -> Any:
            result = real(this, *args, **options)
            if name != "submit" or args[0] == Kind.WRITE:
                self.count += 1
                if self.count == self.number:
                    channel = this.stream.channel if isinstance(this, Sftp) else None
                    transport = channel.transport if channel else _transport_of(this)
                    transport.close()
                    raise errors.ConnectionLost(f"cut after operation {self.number}")
            return result

        return call


def _transport_of(this: Any) -> Any:
    connection = this if isinstance(this, Connection) else this.link.connection
    return connection._connected.transport


@pytest.mark.parametrize("state", ["new", "flashed", "rollback"])
def test_cut_after_each_operation_the_board_works(
    state: str, start: Start, me: Path, runner: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the old release or the new one; only a board that never had one may be without. And the next flash succeeds."""
    one, two = runner("one"), runner("two")
    old, new = release_of(one), release_of(two)
    cut = Cut(monkeypatch)
    server = start()
    know(me, server)
    address = f"ssh://127.0.0.1:{server.port}"
    for number in range(1, 400):
        cut.number = 0
        if state != "new" and number == 1:
            flash(address, one)
        if state == "rollback" and number == 1:
            flash(address, two)
        saved = tmp_path / "saved"
        if number == 1 and state != "new":
            _copy(server.home, saved)
        _restore(saved, server.home)
        assert state == "new" or works(address), "a host of the old release runs"
        cut.number, cut.count, finished = number, 0, False
        try:
            with Connection(address) as connection:
                deadline = Deadline.after(SECONDS)
                made = plan_rollback(connection, deadline) if state == "rollback" else plan_flash(connection, deadline, two)
                execute(connection, made)
                finished = True
        except LinkError:
            pass
        cut.number = 0
        current = links(server.home)[0]
        if current is None:
            assert state == "new", f"cut {number}"
        else:
            assert current in (old, new)
            assert works(address), f"cut {number}"
        if finished:
            break
        flash(address, two)
        assert links(server.home)[0] == new, f"cut {number}"
        assert works(address)
        left = [name for name in names(server.home) if name.startswith(".")]
        assert left == [], f"cut {number}"
    assert finished
    assert number > 15


#: passes every check before the switch, and its host never answers
NO_HOST = '#!/bin/sh\ncase "$1" in version) echo edgekit-runner 0;; check) ;; *) echo "no socket" >&2; exit 3;; esac\n'


@pytest.mark.parametrize("next_one", ["the same", "another"])
def test_cut_after_each_operation_a_release_that_does_not_work_is_left_again(
    next_one: str, board: Sshd, address: str, runner: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Cut before its check, it may be current; who connects is told, and the next flash goes back, or on to a better one."""
    good, bad, other = runner("good"), runner("bad", NO_HOST), runner("other")
    flash(address, good)
    saved = tmp_path / "saved"
    _copy(board.home, saved)
    cut, left = Cut(monkeypatch), 0
    for number in range(1, 400):
        _restore(saved, board.home)
        cut.number, cut.count = number, 0
        with pytest.raises((LinkError, FlashFailed)) as caught:
            flash(address, bad)
        cut.number = 0
        if links(board.home)[0] == release_of(bad):
            left += 1
            with pytest.raises(LinkError, match="never confirmed"):
                works(address)
        if next_one == "another":
            flash(address, other)
            assert links(board.home) == (release_of(other), release_of(good)), f"cut {number}"
        else:
            with pytest.raises(FlashFailed, match="back on"):
                flash(address, bad)
            assert links(board.home)[0] == release_of(good), f"cut {number}"
        assert works(address)
        assert not (board.home / "unconfirmed").is_symlink()
        if isinstance(caught.value, FlashFailed):
            break
    assert isinstance(caught.value, FlashFailed)
    assert left > 2


def _copy(home: Path, to: Path) -> None:
    Home(home, ()).close()
    shutil.copytree(home, to, symlinks=True, ignore=shutil.ignore_patterns("run"))


def _restore(saved: Path, home: Path) -> None:
    Home(home, ()).close()
    shutil.rmtree(home, ignore_errors=True)
    if saved.exists():
        shutil.copytree(saved, home, symlinks=True)
