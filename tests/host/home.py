"""A home folder and the real processes around it: hosts, and attaches that talk to them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.runner.make_golden import RECORDS, SESSIONS, START
from tests.runner.process import Runner
from tests.runner.programs import Classifier, sample_data, write_data

SECONDS = 30.0
FLOCK = "hhqqi"  #: struct flock of 64-bit Linux: type, whence, start, length, pid
PROGRAM = Classifier(dropout=0.3, lr=0.05)  #: its state depends on the seed and on every step


class Home:
    """One home folder; ``command`` starts its runner."""

    def __init__(self, path: Path, command: tuple[str, ...]) -> None:
        self.path = path
        self.command = command
        self.runners: list[Runner] = []

    def attach(self, *options: str, before: Callable[[], None] | None = None) -> Runner:
        """A connection, by a host that is started where none runs."""
        return self.start("attach", *(options or ("--threads", "1")), before=before)

    def host(self, *options: str, before: Callable[[], None] | None = None) -> Runner:
        """A host in the foreground, listening."""
        runner = self.start("host", *(options or ("--threads", "1")), before=before)
        wait_for(lambda: self.holder() != 0 or runner.process.poll() is not None)
        return runner

    def start(self, word: str, *options: str, before: Callable[[], None] | None = None) -> Runner:
        runner = Runner(*self.command, word, "--home", str(self.path), *options, before=before)
        self.runners.append(runner)
        return runner

    def holder(self) -> int:
        """The process that is this home's host, or 0."""
        lock = self.path / "run" / "lock"
        if not lock.exists():
            return 0
        with lock.open("rb") as file:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else int(pid)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal the host, and wait for its end."""
        pid = self.holder()
        assert pid
        os.kill(pid, number)
        wait_for(lambda: self.holder() != pid)

    def folder(self, session: str) -> Path:
        return self.path / "sessions" / session

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if pid := self.holder():
                os.kill(pid, signal.SIGKILL)
        for runner in self.runners:
            runner.process.kill()
            runner.process.wait()
            for stream in (runner.process.stdin, runner.process.stdout, runner.process.stderr):
                assert stream is not None
                with contextlib.suppress(OSError):
                    stream.close()


def wait_for(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def training(folder: Path, samples: int = 400, **keys: Any) -> dict[str, Any]:
    """The keys of a start that trains PROGRAM; its files are made in ``folder``."""
    folder.mkdir(exist_ok=True)
    program = folder / "model.ekp"
    if not program.exists():
        PROGRAM.program().save(program)
    data = write_data(folder / f"data-{samples}", *sample_data(samples))
    start = {"kind": "train", "data": data, "epochs": 4, "shuffle": True, "seed": 5, "program": str(program)}
    return start | {"session": "s1"} | keys


def records_of(runner: Runner, session: str, since: int = 0) -> list[list[Any]]:
    """All that are there now."""
    rows: list[list[Any]] = []
    while True:
        part = runner.ask(RECORDS, since=since + len(rows), max=1000, session=session)
        assert part["first"] == since + len(rows)
        rows += part["records"]
        if not part["records"]:
            return rows


def session_of(runner: Runner, name: str) -> dict[str, Any]:
    return next(s for s in runner.ask(SESSIONS, skip=0)["sessions"] if s["id"] == name)


def what_was_learned(rows: list[list[Any]]) -> list[tuple[int, int, bytes]]:
    """Step, epoch and the loss's bits: what must be the same in every run."""
    return [(step, epoch, np.float32(loss).tobytes()) for _, step, epoch, loss, *_ in rows]


def uninterrupted(home: Home, start: dict[str, Any]) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """The checkpoint and the records of a run that nothing disturbed, in a home of its own."""
    other = Home(home.path.parent / "undisturbed", home.command)
    try:
        runner = other.attach()
        runner.ask(START, **start)
        assert runner.finish()["state"] == "done"
        learned = what_was_learned(records_of(runner, start["session"]))
        return (other.folder(start["session"]) / "checkpoint.ekc").read_bytes(), learned
    finally:
        other.close()
        shutil.rmtree(other.path)
