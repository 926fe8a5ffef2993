"""The host as a process: one a home, reached by attach, not held up by anybody, and gone when nobody needs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest
from smp.header import OP, Flag, Header, Version

from edgekit.protocol.client import PROTOCOL
from edgekit.protocol.status import Status
from tests.host.home import Home, records_of, session_of, training, wait_for
from tests.runner.feeding import PROGRAM, Feeding
from tests.runner.make_golden import INFO, LOAD, RECORDS, RESUME, SESSIONS, START, STATUS, STOP, TRAINING
from tests.runner.process import RESET, Runner, RunnerError

LONG = {"samples": 4000, "epochs": 10**5}
RUN_SECONDS = 15


def request(command: int, group: int = TRAINING, **keys: object) -> bytes:
    body = cbor2.dumps(keys)
    return bytes(Header(OP.READ, Version.V2, Flag(0), len(body), group, 0, command)) + body


def connect(home: Home) -> socket.socket:
    """Straight to the host's socket, by a short way there: addresses are short."""
    sock = socket.socket(socket.AF_UNIX)
    folder = os.open(home.path, os.O_PATH)
    try:
        sock.connect(f"/proc/self/fd/{folder}/run/socket")
    finally:
        os.close(folder)
    return sock


def end_of(runner: Runner, seconds: float = RUN_SECONDS) -> tuple[int, str]:
    """Its exit code and what it said."""
    code = runner.process.wait(seconds)
    assert runner.process.stderr is not None
    return code, runner.process.stderr.read().decode()


def log_of(home: Home) -> str:
    return (home.path / "run" / "log").read_text()


def test_attach_starts_a_host_that_is_a_process_of_its_own(home: Home) -> None:
    runner = home.attach("--threads", "2")
    info = runner.ask(INFO)
    assert info["pid"] == home.holder() != runner.process.pid
    assert os.getsid(info["pid"]) == info["pid"]
    assert (info["home"], info["threads"], info["protocol"]) == (str(home.path), 2, PROTOCOL)
    assert Path(info["executable"]).samefile(home.command[-1])
    assert abs(info["disk"] - shutil.disk_usage(home.path).free) < 1 << 30
    fds = Path(f"/proc/{info['pid']}/fd")
    assert {str(fds.joinpath(fd).readlink()) for fd in "01"} == {"/dev/null"}
    assert (fds / "2").readlink() == home.path / "run" / "log"
    for folder in (home.path, home.path / "run"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert runner.close() == 0


def test_the_host_holds_nothing_of_who_started_it(home: Home) -> None:
    """An SSH server waits for everyone who holds its channel."""
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    runner = Runner(*home.command, "attach", "--home", str(home.path), before=lambda: os.dup2(theirs, 9))
    home.runners.append(runner)
    runner.ask(INFO)
    os.close(theirs)
    runner.close()
    assert home.holder()
    assert select.select([ours], [], [], 5)[0], "the host still holds the pipe"
    os.close(ours)


def test_attaches_at_the_same_moment_share_one_host(home: Home) -> None:
    for _ in range(5):
        runners = [home.attach() for _ in range(4)]
        instances = {runner.ask(INFO)["instance"] for runner in runners}
        assert len(instances) == 1
        assert [runner.close() for runner in runners] == [0] * 4
        home.kill()


def test_a_second_host_is_refused(home: Home) -> None:
    first = home.host()
    code, words = end_of(home.start("host"))
    assert code == 5
    assert f"process {first.process.pid}" in words
    assert home.attach().ask(INFO)["pid"] == first.process.pid


def test_the_socket_of_a_killed_host_is_replaced(home: Home) -> None:
    home.attach().ask(INFO)
    home.kill()
    assert (home.path / "run" / "socket").exists()
    assert home.attach().ask(INFO)["pid"] == home.holder()


def test_a_stopped_host_is_woken(home: Home, tmp_path: Path) -> None:
    runner = home.attach()
    runner.ask(START, **training(tmp_path, **LONG))
    pid = home.holder()
    os.kill(pid, signal.SIGSTOP)
    before = time.monotonic()
    second = home.attach()
    assert second.ask(STATUS)["state"] == "running"
    assert time.monotonic() - before < 5
    assert home.holder() == pid
    second.ask(STOP)


def test_a_host_that_is_stopped_while_it_is_asked(home: Home) -> None:
    """The bridge says so and ends; what only takes long is waited for."""
    waiting = home.attach()
    waiting.ask(INFO)
    os.kill(home.holder(), signal.SIGSTOP)
    waiting.send(bytes(Header(OP.READ, Version.V2, Flag(0), 1, TRAINING, 0, INFO)) + b"\xa0")
    assert waiting.process.wait(10) == 6
    assert waiting.process.stderr is not None
    assert b"was stopped by a signal" in waiting.process.stderr.read()
    assert home.attach().info()["pid"] == home.holder()


@pytest.mark.slow
def test_a_host_that_does_not_answer_is_told_in_bounded_time(home: Home) -> None:
    """Something holds the lock and listens, and never accepts."""
    run = home.path / "run"
    run.mkdir(parents=True)
    with (run / "lock").open("w") as lock, socket.socket(socket.AF_UNIX) as listener:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        folder = os.open(run, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        listener.listen()
        before = time.monotonic()
        code, words = end_of(home.attach())
    assert code == 4
    assert f"process {os.getpid()}" in words
    assert 9 < time.monotonic() - before < 13


def test_why_no_host_could_be_started_is_told(home: Home) -> None:
    code, words = end_of(home.attach("--isa", "abacus"))
    assert code == 3
    assert "no instruction set abacus" in words
    code, words = end_of(home.attach("--threads", "0"))
    assert code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_home_that_cannot_be_written_is_told(home: Home, tmp_path: Path) -> None:
    (home.path / "run").mkdir(parents=True)
    for folder in (home.path / "run", home.path):
        folder.chmod(0o555)
    runner = tmp_path / "edgekit-runner"
    shutil.copy(home.command[-1], runner)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/tmp") and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)

    def as_nobody(word: str) -> tuple[int, str]:
        return end_of(Runner(str(runner), word, "--home", str(home.path), before=lambda: os.setuid(65534)))

    code, words = as_nobody("attach")
    assert code == 3
    assert "Permission denied" in words or "not permitted" in words
    code, words = as_nobody("check")
    assert code == 1
    assert str(home.path) in words
    home.path.chmod(0o700)
    assert home.attach().ask(STATUS)["state"] == "idle"


def test_a_home_with_a_long_path_and_a_relative_one(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 200)
    deep.mkdir()
    monkeypatch.chdir(deep)
    home = Home(Path("home"), command)
    try:
        assert home.attach().ask(INFO)["home"] == str(deep / "home")
    finally:
        home.close()


def test_the_home_comes_from_the_environment(command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, path in (("HOME", tmp_path, tmp_path / ".edgekit"), ("EDGEKIT_HOME", tmp_path / "h", tmp_path / "h")):
        monkeypatch.delenv("EDGEKIT_HOME", raising=False)
        monkeypatch.setenv(name, str(value))
        done = subprocess.run([*command, "check"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"home {path}\n")


# ---- who must not hold it up ----


def test_nobody_holds_up_the_training_or_the_others(home: Home, tmp_path: Path) -> None:
    """Half a message, a message never read from, one byte at a time, noise: all while a session runs."""
    runner = home.attach()
    start = training(tmp_path, **LONG)
    runner.ask(START, **start)
    wait_for(lambda: runner.ask(STATUS)["step"] > 4000)
    half, deaf, slow, noise = (connect(home) for _ in range(4))
    half.sendall(request(STATUS)[:5])
    deaf.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            deaf.send(request(RECORDS, since=0, max=1000, session="s1"))
    noise.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    waited, steps = 0.0, runner.ask(STATUS)["step"]
    for byte in request(STATUS) * 4:
        slow.sendall(bytes([byte]))
        before = time.monotonic()
        step = runner.ask(STATUS)["step"]
        waited = max(waited, time.monotonic() - before)
        time.sleep(0.01)
    assert step > steps
    assert waited < 2
    assert len(slow.recv(10_000)) > 100
    runner.ask(STOP)
    assert runner.finish()["state"] == "stopped"
    assert [r[0] for r in records_of(runner, "s1")[-3:]] == [runner.ask(STATUS)["step"] - i for i in (3, 2, 1)]
    for sock in (half, deaf, slow, noise):
        sock.close()
    assert runner.ask(STATUS)["state"] == "stopped"


def test_a_client_that_ends_its_requests_still_gets_the_answers(home: Home) -> None:
    home.attach().ask(INFO)
    done = subprocess.run(
        [*home.command, "attach", "--home", str(home.path)], input=request(STATUS) * 500, capture_output=True, timeout=RUN_SECONDS
    )
    assert done.returncode == 0
    length = Header.SIZE + Header.loads(done.stdout[:8]).length
    assert len(done.stdout) == 500 * length


@pytest.mark.slow
def test_a_ninth_client_waits_for_a_place(home: Home) -> None:
    runners = [home.attach() for _ in range(8)]
    for runner in runners:
        runner.ask(INFO)
    code, words = end_of(home.attach())
    assert code == 4
    assert "8 connections" in words
    late = home.attach()
    time.sleep(0.3)
    runners[0].close()
    assert late.ask(STATUS)["state"] == "idle"


@pytest.mark.slow
def test_a_client_that_is_silent_for_long_gives_its_place_to_another(home: Home) -> None:
    """As the attach of a link that is half open, of which no end ever comes."""
    runners = [home.attach() for _ in range(8)]
    for runner in runners:
        runner.ask(INFO)
    time.sleep(61)
    for runner in runners[1:]:
        runner.ask(INFO)
    assert home.attach().ask(STATUS)["state"] == "idle"
    assert runners[0].process.wait(RUN_SECONDS) == 0
    assert runners[1].ask(STATUS)["state"] == "idle"


# ---- its end ----


def test_reset_waits_for_the_session_or_stops_it(home: Home, tmp_path: Path) -> None:
    runner = home.attach()
    first = runner.ask(INFO)
    runner.ask(START, **training(tmp_path, **LONG))
    with pytest.raises(RunnerError) as caught:
        runner.ask(RESET, group=0)
    assert (caught.value.group, caught.value.rc) == (0, 10)
    assert runner.ask(RESET, group=0, force=1) == {}
    assert runner.process.wait(RUN_SECONDS) == 0
    wait_for(lambda: home.holder() != first["pid"])
    runner = home.attach()
    assert runner.ask(INFO)["instance"] != first["instance"]
    row = session_of(runner, "s1")
    assert (row["state"], row["checkpoint"]) == ("stopped", row["step"])
    assert runner.ask(RESET, group=0) == {}
    assert runner.process.wait(RUN_SECONDS) == 0
    wait_for(lambda: home.holder() == 0)
    assert not (home.path / "run" / "socket").exists()


@pytest.mark.slow
def test_it_ends_when_nobody_needs_it(home: Home, tmp_path: Path) -> None:
    host = home.host("--idle", "1")
    runner = home.attach()
    runner.ask(START, **training(tmp_path, **LONG))
    runner.close()
    time.sleep(2)
    runner = home.attach()
    assert runner.ask(STATUS)["state"] == "running"
    runner.ask(STOP)
    time.sleep(2)
    assert runner.ask(STATUS)["state"] == "stopped"
    runner.close()
    before = time.monotonic()
    assert host.process.wait(RUN_SECONDS) == 0
    assert time.monotonic() - before < 5
    assert not (home.path / "run" / "socket").exists()


def test_an_evaluation_whose_host_does_not_come_back_is_stopped(home: Home, tmp_path: Path) -> None:
    runner = home.attach("--idle", "1")
    feeding = Feeding(runner, tmp_path / "spool", "evaluate")
    PROGRAM.save(tmp_path / "model.ekp")
    runner.ask(LOAD, path=str(tmp_path / "model.ekp"))
    feeding.start()
    feeding.bring(0)
    feeding.bring(1)
    (feeding.folder / "2.part").write_bytes(b"half a shard")
    feeding.wait_until_it_waits()
    runner.close()
    time.sleep(0.3)
    late = home.attach()
    assert late.ask(STATUS)["state"] == "waiting", "it may come back"
    late.close()
    wait_for(lambda: "waited for a host" in log_of(home))
    wait_for(lambda: list(feeding.folder.iterdir()) == [])
    wait_for(lambda: home.holder() == 0)
    assert "session 1 : stopped at step" in log_of(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_idle_host_ends_at_a_signal(home: Home, number: signal.Signals) -> None:
    host = home.host()
    home.attach().ask(INFO)
    host.process.send_signal(number)
    assert host.process.wait(RUN_SECONDS) == 0


def test_its_log_is_rotated(home: Home, tmp_path: Path) -> None:
    run = home.path / "run"
    run.mkdir(parents=True)
    (run / "log").write_text("old\n" * (256 << 8))
    runner = home.attach()
    runner.ask(START, **training(tmp_path))
    runner.finish()
    wait_for(lambda: "session 1 s1: done" in log_of(home))
    assert (run / "log").stat().st_size < 2000
    assert (run / "log.1").read_text().startswith("old\n")
    assert f"host {home.holder()} of {home.path}" in log_of(home)


# ---- trouble with the disk ----


def limit_files(most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_records_that_cannot_be_written_fail_the_session_alone(home: Home, tmp_path: Path) -> None:
    home.host("--threads", "1", before=limit_files(200 * 128 + 50))
    runner = home.attach()
    start = training(tmp_path)
    runner.ask(START, **start)
    status = runner.finish()
    assert (status["state"], status["rc"], status["step"]) == ("failed", Status.NO_SPACE, 201)
    assert "records: File too large" in status["why"]
    assert len(records_of(runner, "s1")) == 200
    row = session_of(runner, "s1")
    assert (row["state"], row["why"]) == ("failed", status["why"])
    runner.ask(START, **start | {"session": "s2", "steps": 150})
    assert runner.finish()["state"] == "done"
    home.kill()
    runner = home.attach()
    assert session_of(runner, "s1")["state"] == "failed"
    runner.ask(RESUME, session="s1")
    assert runner.finish()["state"] == "done"
    assert [r[1] for r in records_of(runner, "s1")] == list(range(1, 401))


def test_a_checkpoint_that_cannot_be_written_fails_the_session_alone(home: Home, tmp_path: Path) -> None:
    home.host("--threads", "1", before=limit_files(383))  # a checkpoint takes one more, a request less
    runner = home.attach()
    start = training(tmp_path, steps=2)
    runner.ask(START, **start)
    status = runner.finish()
    assert (status["state"], status["rc"]) == ("failed", Status.NO_SPACE)
    assert "checkpoint.ekc: File too large" in status["why"]
    assert [p.name for p in home.folder("s1").glob("*.tmp")] == []
    assert runner.ask(SESSIONS, skip=0)["total"] == 1
    home.kill()
    runner = home.attach()
    runner.ask(RESUME, session="s1")
    assert runner.finish()["state"] == "done"


# ---- the other words ----


def test_check_says_what_it_checked(command: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run([*command, "check", "--home", str(tmp_path / "h")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: ")
    assert done.stdout.count("\n") == 1


_MISTAKES = (
    "dance",
    "--volume 11",
    "receive",
    "receive file",
    "receive file x",
    "receive file -1",
    "receive file 1 2",
    "host --idle",
    "host --idle 0",
)


@pytest.mark.parametrize("line", _MISTAKES)
def test_words_that_there_are_not(command: tuple[str, ...], line: str) -> None:
    done = subprocess.run([*command, *line.split()], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_the_runner_stays_small(command: tuple[str, ...]) -> None:
    assert Path(command[-1]).stat().st_size < 1_000_000
