"""A virtual Raspberry Pi whose clock counts instructions, for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.links.deadline import Deadline
from edgekit.links.ssh import Connection
from edgekit.links.ssh.address import resolve
from edgekit.sessions.flash import execute
from edgekit.sessions.flash_plan import plan_flash
from edgekit.virtual import Settings, delete, start
from edgekit.virtual.progress import Progress, silent
from edgekit.virtual.registry import find
from edgekit.virtual.settings import MIB

MEMORY, ROOM = 2048 * MIB, 3072 * MIB  #: of the board, and of its disk: PyTorch's wheel alone has 650 MB unpacked
SECONDS = 600.0  #: the most that one command may take: emulated, a step of PyTorch's takes seconds


@dataclass(frozen=True)
class CountingBoard:
    """A board that runs. Its device has edgekit's runner."""

    name: str

    @property
    def device(self) -> str:
        return f"ssh://{self.name}"

    def run(self, command: str, data: bytes = b"") -> str:
        """What a command says, as root, with ``data`` for its standard input.

        Raises:
            RuntimeError: it fails.
        """
        deadline = Deadline.after(SECONDS)
        with Connection(replace(resolve(self.device), user="root")) as connection:
            stream = connection.start(command, deadline)
            stream.send(data, deadline)
            stream.channel.shutdown_write()
            done = connection.finish(stream, command, deadline)
        if done.code:
            raise RuntimeError(f"{command} ended with {done.code}: {done.words}")
        return done.out


@contextlib.contextmanager
def counting_board(name: str, home: Path | None = None, progress: Progress = silent) -> Iterator[CountingBoard]:
    """Boot a board with a runner: one core, a nanosecond an instruction. It is deleted at the end.

    ``home`` is a folder whose files are in its /home.
    """
    if find(name) is not None:  # of a run that was killed
        delete(name)
    settings = Settings(name=name, cpus=1, memory=MEMORY, disk=ROOM, icount=True)
    start(settings, progress=progress, home=home)
    try:
        with Connection(f"ssh://{name}") as connection:
            execute(connection, plan_flash(connection, Deadline.after(60)))
        yield CountingBoard(name)
    finally:
        delete(name)
