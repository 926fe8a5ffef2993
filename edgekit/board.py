"""What a board is: its profile in ``boards/<id>.toml`` or in the user's own folder (docs/boards.md)."""

from __future__ import annotations

import os
import platform
import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.errors import InputError

Architecture = Literal["x86_64", "aarch64", "armv7e-m"]
LinkKind = Literal["local", "ssh", "serial"]

#: Profiles of boards that nobody named, by architecture.
GENERAL = {"x86_64": "generic-x86-64", "aarch64": "generic-aarch64", "armv7e-m": "generic-cortex-m7"}
_MACHINES: dict[str, Architecture] = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sensors(_Strict):
    """Files on the board that hold one integer each, read once a step; None where the board has none.

    Attributes:
        temperature: m°C (Linux thermal zones).
        clock: kHz (Linux cpufreq).
        throttled: a flag word, 0 while nothing throttles.
        power: µW (Linux hwmon).
    """

    temperature: str | None = None
    clock: str | None = None
    throttled: str | None = None
    power: str | None = None

    @property
    def paths(self) -> dict[str, str]:
        """Only what is known."""
        return {name: path for name, path in self.model_dump().items() if path is not None}


class Board(_Strict):
    """One board's profile.

    Attributes:
        architecture: "local" in a file means this machine's.
        isa: kernel variants it can run, fastest first; empty: whatever the runner finds.
        cores: CPU cores; None: unknown or different from one machine to the next.
        memory: bytes of main memory; None: unknown.
        links: ways to reach it.
        source: where the facts come from.
        file: the profile's own file.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    name: str
    architecture: Architecture
    backend: Literal["cpu", "cortex-m", "torch"]
    isa: tuple[str, ...] = ()
    cores: int | None = Field(default=None, gt=0)
    memory: int | None = Field(default=None, gt=0)
    links: tuple[LinkKind, ...] = Field(min_length=1)
    sensors: Sensors = Sensors()
    notes: str = ""
    source: str = ""
    file: str = ""


def config_folder() -> Path:
    """Where the user's own settings lie: ``$EDGEKIT_CONFIG``, or the platform's place for them."""
    chosen = os.environ.get("EDGEKIT_CONFIG")
    return Path(chosen) if chosen else Path(platformdirs.user_config_dir("edgekit"))


def load_board(identity: str) -> Board:
    """The board of an id; the user's own profile wins over one that comes with edgekit.

    Raises:
        InputError: no such board, or its file is no valid profile.
    """
    files = _files()
    if identity not in files:
        raise InputError(
            f"there is no board {identity!r}",
            f"known boards: {', '.join(sorted(files))}; your own go to {config_folder() / 'boards'}/<id>.toml",
        )
    return read_board(files[identity])


def all_boards() -> list[Board]:
    """Every known board, by id.

    Raises:
        InputError: a file is no valid profile.
    """
    return [read_board(path) for _, path in sorted(_files().items())]


def read_board(path: Path) -> Board:
    """Read one profile.

    Raises:
        InputError: naming the file and the key at fault.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    if table.get("architecture") == "local":
        table["architecture"] = this_architecture()
    for key in ("isa", "links"):  # TOML has no tuples
        if isinstance(table.get(key), list):
            table[key] = tuple(table[key])
    try:
        board = Board(**{**table, "file": str(path)})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path} is no valid board profile: {faults}", "docs/boards.md lists the keys") from error
    if board.id != path.stem:
        raise InputError(f"{path}: id is {board.id!r}", f"name the file {board.id}.toml, or set id = {path.stem!r}")
    return board


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in board_folders() for path in folder.glob("*.toml")}


def board_folders() -> tuple[Path, Path]:
    """Where files about boards lie: those that come with edgekit, then the user's own, which win."""
    return Path(str(resources.files("edgekit.boards"))), config_folder() / "boards"


def this_architecture() -> Architecture:
    """This machine's processor family.

    Raises:
        InputError: edgekit has no backend for it.
    """
    machine = platform.machine().lower()
    if machine not in _MACHINES:
        supported = ", ".join(sorted(_MACHINES))
        raise InputError(f"this machine's architecture {machine!r} has no backend", f"supported: {supported}")
    return _MACHINES[machine]
