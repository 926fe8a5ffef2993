"""The messages of docs/protocol.md. Requests are SMP messages; a reply is the map that answers one.

A reply ignores keys that it does not know, so that a newer runner's answers still fit.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from smp.message import ReadRequest, WriteRequest

GROUP = 64  #: the first of SMP's user groups

State = Literal["idle", "running", "done", "stopped", "failed"]
Kind = Literal["train", "evaluate", "predict"]
Number = int | float | None


class InfoRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 0


class LoadRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 1

    path: str


class StartRequest(WriteRequest):
    """``seed`` and ``every`` and the like are docs/protocol.md's; what is not given does not travel."""

    _GROUP_ID = GROUP
    _COMMAND_ID = 2

    kind: Kind
    data: str
    epochs: int | None = None
    shuffle: bool | None = None
    seed: int | None = None
    resume: str | None = None
    state: str | None = None
    reset: bool | None = None
    checkpoint: str | None = None
    every: int | None = None
    out: str | None = None
    profile: bool | None = None
    steps: int | None = None


class StatusRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 3


class RecordsRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 4

    since: int
    max: int


class StopRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 5


class SaveRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 6

    path: str


class MetricsRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 7


class ProfileRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 8

    since: int


class SensorsRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 9

    temperature: str | None = None
    clock: str | None = None
    throttled: str | None = None
    power: str | None = None


class Reply(BaseModel):
    """The CBOR map of a response that is no error."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Echo(Reply):
    r: str


class Parameters(Reply):
    buf_size: int
    buf_count: int


class Info(Reply):
    """What a runner says of itself and its board. ``memory`` and ``disk`` (free in the home folder) are in bytes.

    ``executable`` is its real path, ``instance`` another number at each start.
    """

    version: str
    protocol: int
    architecture: str
    backend: str
    isa: str
    threads: int
    cores: int
    memory: int
    pid: int
    home: str | None = None
    executable: str | None = None
    instance: int | None = None
    disk: int | None = None


class Loaded(Reply):
    """A program's memory on the board, in bytes by purpose."""

    sha: bytes
    arena: int
    state: int
    constants: int
    scratch: int
    prepared: int


class Started(Reply):
    id: int
    steps: int
    samples: int
    dropped: int = 0
    next: int = 0


class Status(Reply):
    state: State
    id: int = 0
    step: int = 0
    steps: int = 0
    next: int = 0
    rc: int = 0
    why: str = ""


class Records(Reply):
    first: int
    records: list[tuple[Number, ...]]
    next: int
    state: State


class Saved(Reply):
    bytes: int


class MetricsReply(Reply):
    loss: float | None
    correct: int
    counted: int
    samples: int


class Profile(Reply):
    """Rows of (op number, runs, ns)."""

    first: int
    ops: list[tuple[int, int, int]]
    next: int
    total: int


class Empty(Reply):
    pass
