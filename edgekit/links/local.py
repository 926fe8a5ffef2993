"""The board that is this machine: the runner as a process, messages over its standard input and output."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.errors import LinkError
from edgekit.files import write_atomic
from edgekit.links.deadline import Deadline

_CHUNK = 65536
_TAIL = 2000  #: bytes of the runner's log that an error shows
_DOCTOR = "`edgekit doctor` builds and checks the runner"
_GRACE = 5.0  #: seconds that a runner gets to end by itself


class LocalLink:
    """A running runner. Its files are this machine's, so nothing is copied.

    Raises:
        LinkError: the program to run is missing or cannot be started.
    """

    def __init__(self, command: Sequence[str], name: str = "local") -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would fill up if nobody read it
        try:
            # A session of its own: a Ctrl-C in the terminal reaches the host alone, which then stops the board in order.
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._log.close()
            raise LinkError(f"the runner {command[0]} cannot be started: {error.strerror}", _DOCTOR) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._input, self._output):
            os.set_blocking(descriptor, False)

    def send(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._input, selectors.EVENT_WRITE, deadline)
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._died() from None

    def receive(self, deadline: Deadline) -> bytes:
        while True:
            self._wait(self._output, selectors.EVENT_READ, deadline)
            try:
                data = os.read(self._output, _CHUNK)
            except BlockingIOError:
                continue
            if not data:
                raise self._died()
            return data

    def board_path(self, local: Path) -> str:
        return str(local.absolute())

    def user_path(self, path: str) -> str:
        return str(Path(path).expanduser().absolute())

    def put_file(self, local: Path, deadline: Deadline) -> str:  # noqa: ARG002
        return self.board_path(local)

    def missing(self, local: Path, deadline: Deadline) -> int:  # noqa: ARG002
        return 0

    def bring(self, data: bytes, remote: str, deadline: Deadline) -> Iterator[None]:  # noqa: ARG002
        write_atomic(Path(remote), data)
        yield

    def get_file(self, remote: str, local: Path, deadline: Deadline) -> None:  # noqa: ARG002
        source = Path(remote)
        if not source.exists():
            raise LinkError(f"{self.name}: there is no file {remote}")
        if source.absolute() != local.absolute():
            with source.open("rb") as file:
                write_atomic(local, lambda out: shutil.copyfileobj(file, out))

    def close(self) -> None:
        """Close the runner's input, which ends it; force it where that does not help."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _wait(self, descriptor: int, event: int, deadline: Deadline) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            raise LinkError(f"{self.name}: the connection is closed")
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(deadline.remaining()):
                raise deadline.expired(f"{self.name}: the runner (process {self._process.pid})")

    def _died(self) -> LinkError:
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return LinkError(f"{self.name}: the runner closed its output but still runs (process {self._process.pid})")
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        words = self._tail()
        return LinkError(f"{self.name}: the runner ended {how}" + (f"; its last words:\n{words}" if words else ""), _DOCTOR)

    def _tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL))
        return self._log.read().decode(errors="replace").strip()
