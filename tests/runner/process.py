"""The real runner process, spoken to with the standard packages rather than with our own client."""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from smp.header import OP, Flag, Header, Version

from edgekit.protocol.status import Status
from tests.runner.make_golden import (
    INFO,
    LOAD,
    METRICS,
    PROFILE,
    RECORDS,
    REMOVE,
    RESUME,
    SAVE,
    SENSORS,
    SHARDS,
    START,
    STATUS,
    STOP,
    TRAINING,
)

WRITES = {LOAD, START, STOP, SAVE, SENSORS, RESUME, REMOVE, SHARDS}
ECHO, RESET = 0, 5  # of group 0, both written
SECONDS = 20.0


class RunnerError(Exception):
    """The runner answered with an error."""

    def __init__(self, payload: dict[str, Any]) -> None:
        super().__init__(str(payload))
        self.group, self.rc, self.why = payload["err"]["group"], payload["err"]["rc"], payload.get("why", "")


class Runner:
    """One runner process."""

    def __init__(self, *command: str, before: Callable[[], None] | None = None) -> None:
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=before,
        )
        self._sequence = itertools.count()

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes; fewer only where the output ended."""
        assert self.process.stdout is not None
        data, end = b"", time.monotonic() + SECONDS
        while len(data) < count:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{len(data)} of {count} bytes: {data!r}")
            part = os.read(self.process.stdout.fileno(), count - len(data))
            if not part:
                break
            data += part
        return data

    def answer(self) -> tuple[Header, dict[str, Any]]:
        header = Header.loads(self.read(Header.SIZE))
        return header, cbor2.loads(self.read(header.length))

    def ask(self, command: int, group: int = TRAINING, **request: Any) -> dict[str, Any]:
        """The answer; RunnerError where it is an error."""
        op = OP.WRITE if (group == 0 and command in (ECHO, RESET)) or (group == TRAINING and command in WRITES) else OP.READ
        body, sequence = cbor2.dumps(request), next(self._sequence) % 256
        self.send(bytes(Header(op, Version.V2, Flag(0), len(body), group, sequence, command)) + body)
        header, payload = self.answer()
        assert (header.op, header.version, header.group_id, header.sequence, header.command_id) == (
            op + 1, Version.V2, group, sequence, command,
        )  # fmt: skip
        if "err" in payload:
            raise RunnerError(payload)
        return payload

    def fails(self, status: Status, command: int, **request: Any) -> str:
        """The request fails with this status; its text."""
        with pytest.raises(RunnerError) as caught:
            self.ask(command, **request)
        assert (caught.value.group, Status(caught.value.rc)) == (TRAINING, status), caught.value.why
        return str(caught.value.why)

    def finish(self) -> dict[str, Any]:
        """Wait for the session's end; the last status."""
        end = time.monotonic() + SECONDS
        while (status := self.ask(STATUS))["state"] == "running":
            assert time.monotonic() < end
            time.sleep(0.001)
        return status

    def session(self, kind: str, data: str, **request: Any) -> dict[str, Any]:
        """Start, wait, and the last status, which must be `done`."""
        if kind == "train":
            request = {"epochs": 1, "shuffle": False, "seed": 0} | request
        self.ask(START, kind=kind, data=data, **request)
        status = self.finish()
        assert status["state"] == "done", status
        return status

    def records(self, since: int = 0) -> list[list[Any]]:
        """All records from a cursor on."""
        rows: list[list[Any]] = []
        while part := self.ask(RECORDS, since=since, max=4096):
            rows += part["records"]
            if part["next"] == since:
                return rows
            since = part["next"]
        return rows

    def info(self) -> dict[str, Any]:
        return self.ask(INFO)

    def metrics(self) -> dict[str, Any]:
        return self.ask(METRICS)

    def profile(self, since: int = 0) -> dict[str, Any]:
        return self.ask(PROFILE, since=since)

    def close(self) -> int:
        """End its input; its exit code."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        return self.process.wait(SECONDS)
