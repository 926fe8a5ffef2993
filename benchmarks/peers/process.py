"""The driver's side of the conversation with a worker (workers/serve.py has the other, and what is said)."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class WorkerError(Exception):
    """A worker said that it failed, died, or took too long."""


class Worker:
    """A process that trains one job with one peer's Trainer."""

    def __init__(self, python: Path, worker: str, folder: Path, log: Path) -> None:
        """Starts it; ``ready`` waits for it. What it and its libraries print goes to ``log``."""
        command = [str(python), "-m", "benchmarks.peers.workers", worker, str(folder)]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self._log = log
        self._rest = b""

    def ready(self, timeout: float) -> str:
        """Wait until it has built its graph; the framework's version.

        Raises:
            WorkerError: it could not.
        """
        return str(self._answer(timeout)["ready"])

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            WorkerError: there is none.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer(timeout)

    def close(self) -> None:
        """End it and what it started."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

        assert self._process.stdout is not None
        self._process.stdout.close()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answer(self, timeout: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line(time.monotonic() + timeout, timeout))
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _line(self, deadline: float, timeout: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    self.kill()
                    raise WorkerError(f"no answer within {timeout:.0f} s")
                new = os.read(self._process.stdout.fileno(), 1 << 20)
                if not new:
                    raise self._ended()
                self._rest += new
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _ended(self) -> WorkerError:
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return WorkerError(f"ended with {self._process.wait()}" + (f": {said[-1][:200]}" if said else ""))
