"""A run's folder: ``run.json`` says what ran, ``steps.jsonl`` what each step gave (docs/telemetry.md)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekit.errors import InputError, IntegrityError
from edgekit.files import storage_error, storage_errors, write_atomic
from edgekit.telemetry.record import Record

RUN = "run.json"
STEPS = "steps.jsonl"


class RunFolder:
    """The folder of one run, open for writing.

    ``run.json`` is replaced as a whole; ``steps.jsonl`` only grows, one line a write, so that a cut loses at most the last line.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], *, again: bool = False) -> None:
        """Make the folder and write ``facts`` into its run.json.

        Args:
            again: go on with the run that is there already, if one is; ``facts`` are added to its own.

        Raises:
            InputError: there is a run in this folder already.
            IntegrityError: the run that is there is damaged.
            StorageError: the folder cannot be made or written.
        """
        there = (path / RUN).exists()
        if there and not again:
            raise InputError(f"{path} holds a run already", "choose another folder for this one")
        run = read_run(path) if there else Run(path, {}, [])
        self.path = path
        self.records = run.records  #: that were there already
        self._facts = {**run.facts, **facts}
        with storage_errors(f"cannot make the run's folder {path}"):
            path.mkdir(parents=True, exist_ok=True)
        self.note()
        with storage_errors(f"cannot write {path / STEPS}"):
            self._steps = os.open(path / STEPS, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            _cut_torn_line(self._steps)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What run.json holds."""
        return self._facts

    def note(self, **facts: Any) -> None:
        """Add facts to run.json, or change them.

        Raises:
            StorageError: it cannot be written; the file is as it was.
        """
        self._facts.update(facts)
        write_atomic(self.path / RUN, (json.dumps(self._facts, indent=2) + "\n").encode())

    def append(self, record: Record) -> None:
        """Add a step.

        Raises:
            StorageError: the disk is full; what was there is whole.
        """
        line = (json.dumps(record.to_json()) + "\n").encode()
        before = os.fstat(self._steps).st_size
        try:
            written = os.write(self._steps, line)
            if written < len(line):
                os.write(self._steps, line[written:])  # a full disk says so only now
        except OSError as error:
            if os.fstat(self._steps).st_size > before:
                os.ftruncate(self._steps, before)
            raise storage_error(f"cannot write {self.path / STEPS}", error) from error

    def close(self) -> None:
        """No more steps, and those there are on the disk; again and again is fine."""
        if self._steps < 0:
            return
        try:
            os.fsync(self._steps)
        except OSError as error:
            raise storage_error(f"cannot write {self.path / STEPS}", error) from error
        finally:
            os.close(self._steps)
            self._steps = -1


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it."""

    path: Path
    facts: dict[str, Any]
    records: list[Record]


def read_run(path: Path) -> Run:
    """Read a run's folder; one that was cut off while it was written is fine.

    Raises:
        InputError: no run lies there.
        IntegrityError: a file is damaged.
    """
    try:
        facts = json.loads((path / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} holds no run: there is no {RUN}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise IntegrityError(f"{path / RUN} is damaged: {error}") from error
    return Run(path, facts, list(_records(path / STEPS)))


def _cut_torn_line(file: int) -> None:
    """Drop what follows the last line end: a line that was cut off while it was written."""
    size = os.fstat(file).st_size
    whole = os.pread(file, size, 0).rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(file, whole)


def clean_name(name: str) -> str:
    """A name of letters, digits, ``.``, ``_`` and ``-`` for a folder or a session."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def new_run_path(root: Path, name: str) -> Path:
    """``root/<UTC time>-<name>``, a number behind it where that is taken."""
    base = root / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{clean_name(name)}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def _records(path: Path) -> Iterator[Record]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line end was cut off
        try:
            yield Record.from_json(json.loads(line))
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{path}, line {number} is damaged: {error}") from error
