"""Which virtual boards there are: a folder each, ``virtual/<name>/`` among the settings, with a locked PID file while it runs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgekit.board import config_folder
from edgekit.errors import InputError, IntegrityError
from edgekit.files import locked, storage_errors, write_atomic
from edgekit.virtual.qemu import PID, running_pid
from edgekit.virtual.settings import M7, MACHINE, Settings

USER = "pi"
_RECORD = "board.json"


@dataclass(frozen=True)
class VirtualBoard:
    """A board as it stands. ``settings.port`` is the one that it has or had.

    Attributes:
        pid: QEMU's process, None while the board is stopped.
        uptime: seconds since QEMU's start, None while the board is stopped.
    """

    settings: Settings
    folder: Path
    pid: int | None
    uptime: float | None

    @property
    def name(self) -> str:
        """The device's name."""
        return self.settings.name

    @property
    def state(self) -> Literal["running", "stopped"]:
        """Whether its QEMU runs."""
        return "stopped" if self.pid is None else "running"

    @property
    def port(self) -> int:
        """Of 127.0.0.1."""
        assert self.settings.port is not None
        return self.settings.port

    @property
    def address(self) -> str:
        """Where it is reached: over SSH, or its serial line."""
        return f"socket://127.0.0.1:{self.port}" if self.settings.machine == M7 else f"ssh://{USER}@127.0.0.1:{self.port}"

    @property
    def known_host(self) -> str:
        """Its name in known_hosts."""
        return f"[127.0.0.1]:{self.port}"

    def facts(self) -> dict[str, Any]:
        """For a report."""
        state = {"state": self.state, "pid": self.pid, "uptime": self.uptime}
        return {**asdict(self.settings), "address": self.address, **state, "folder": str(self.folder)}


def board_folder(name: str) -> Path:
    """Where a board's disk, keys and log are."""
    return config_folder() / "virtual" / name


def host_key(board: str) -> Path:
    """The key that proves which board it is."""
    return board_folder(board) / "host_key"


def login_key() -> Path:
    """The key that opens every virtual board."""
    return config_folder() / "keys" / MACHINE


@contextlib.contextmanager
def board_locked(name: str) -> Iterator[None]:
    """One command at a time starts or stops a board."""
    parent = board_folder(name).parent
    with storage_errors(f"cannot use the folder {parent}"):
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(parent / f".{name}.lock"):
        yield


def find(name: str) -> VirtualBoard | None:
    """The board of a name, running or not; None where it was never started.

    Raises:
        IntegrityError: its record is damaged.
    """
    folder = board_folder(name)
    record = folder / _RECORD
    with storage_errors(f"cannot read {record}"):
        try:
            settings = Settings(**json.loads(record.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, InputError) as error:
            again = f"delete it, then `edgekit virtual start --name {name}`"
            raise IntegrityError(f"{record} is damaged: {error}", again) from error
    pid = running_pid(folder)
    return VirtualBoard(settings, folder, pid, None if pid is None else _uptime(folder))


def _uptime(folder: Path) -> float | None:
    try:
        return max(0.0, time.time() - (folder / PID).stat().st_mtime)  # QEMU writes it once, when it starts
    except FileNotFoundError:  # it ended just now
        return None


def known(name: str) -> VirtualBoard:
    """The board of a name.

    Raises:
        InputError: there is none; the hint names those that are there.
    """
    board = find(name)
    if board is None:
        names = ", ".join(b.name for b in virtual_boards())
        hint = f"known: {names}" if names else "`edgekit virtual start` makes one"
        raise InputError(f"there is no virtual board {name!r}", hint)
    return board


def virtual_boards() -> list[VirtualBoard]:
    """All boards that were ever started and not deleted, by name.

    Raises:
        IntegrityError: a record is damaged.
    """
    names = sorted(path.parent.name for path in (config_folder() / "virtual").glob(f"*/{_RECORD}"))
    return [board for name in names if (board := find(name)) is not None]


def write_record(settings: Settings) -> None:
    """Keep what a board was started with.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomic(board_folder(settings.name) / _RECORD, json.dumps(asdict(settings), indent=1).encode())
