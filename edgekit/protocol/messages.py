"""The messages of docs/protocol.md. Requests are SMP messages; a reply is the map that answers one.

A reply ignores keys that it does not know, so that a newer runner's answers still fit.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from smp.message import ReadRequest, WriteRequest

GROUP = 64  #: the first of SMP's user groups

State = Literal["idle", "running", "waiting", "done", "stopped", "failed", "interrupted"]
LIVE: tuple[State, ...] = ("running", "waiting")  #: of a session that is not over; one that waits lacks data
Storage = Literal["float32", "float16", "int8"]
Kind = Literal["train", "evaluate", "predict"]
Number = int | float | None
Digest = bytes  #: SHA-256; some messages have a field of the name `bytes`


class InfoRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 0


class LoadRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 1

    path: str


class Stream(BaseModel):
    """A data set that comes as shards, in the place of a start's ``data``: samples in all, steps of a shard, shards that may be
    on the board, the data set's digest, and the folder that they are brought to where the board does not keep the session."""

    samples: int
    steps: int
    ahead: int
    digest: bytes
    folder: str | None = None


class Cache(BaseModel):
    """How what a frozen prefix makes is kept: the type of its floats, the most bytes (None: a quarter of what is free), and the
    file where the board does not keep the session."""

    storage: Storage
    budget: int | None = None
    path: str | None = None


class StartRequest(WriteRequest):
    """``seed`` and ``every`` and the like are docs/protocol.md's; what is not given does not travel.

    With ``session`` (and then ``program``) the board keeps the training under that id. The same request once more is answered
    as the first time, known by that id or by ``token``, a number above 0 that no other start has.
    """

    _GROUP_ID = GROUP
    _COMMAND_ID = 2

    kind: Kind
    data: str | None = None
    stream: Stream | None = None
    cache: Cache | None = None
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
    token: int | None = None
    session: str | None = None
    program: str | None = None

    def but(self, **keys: Any) -> StartRequest:
        """The same start with other values of some keys."""
        own = self.model_dump(exclude=set(WriteRequest.model_fields), exclude_none=True)
        return StartRequest.model_validate(own | keys)


class StatusRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 3


class RecordsRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 4

    since: int
    max: int
    session: str | None = None


class StopRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 5

    session: str | None = None


class SaveRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 6

    path: str


class MetricsRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 7

    id: int | None = None


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


class SessionsRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 10

    skip: int = 0


class ResumeRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 11

    session: str


class RemoveRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 12

    session: str


class ShardsRequest(WriteRequest):
    """Which shards the session that runs wants; with ``number``, ``bytes`` and ``sha`` one has been brought: it is verified."""

    _GROUP_ID = GROUP
    _COMMAND_ID = 13

    session: str | None = None
    number: int | None = None
    bytes: int | None = None
    sha: Digest | None = None


class FetchedRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 14

    session: str


class DiscardRequest(WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 15

    path: str
    unused: int = 0


class LimitsRequest(ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 20


class Reply(BaseModel):
    """The CBOR map of a response that is no error."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Echo(Reply):
    r: str


class Parameters(Reply):
    buf_size: int
    buf_count: int


class Info(Reply):
    """What a runner says of itself and its board. ``memory`` and ``disk`` (free where files go) are in bytes.

    A microcontroller tells the build target of its firmware (``port``), why it started last (``reset``), and how many bytes of
    its ``stack`` were ever in use.

    ``instance`` is another number at each start of a runner. Without a home nothing is kept.
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
    instance: int = 0
    disk: int | None = None
    port: str | None = None
    reset: str | None = None
    stack: int | None = None


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


class Cached(Reply):
    """How many of the samples have a row in a frozen prefix's cache, its bytes, and why there is none, or it grows no more."""

    storage: Storage
    rows: int
    samples: int
    bytes: int
    why: str = ""


class Status(Reply):
    state: State
    id: int = 0
    step: int = 0
    steps: int = 0
    next: int = 0
    rc: int = 0
    why: str = ""
    session: str | None = None
    cache: Cached | None = None


class Records(Reply):
    first: int
    records: list[tuple[Number, ...]]
    next: int
    left: int = 0  #: from ``next`` on, that are there already
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


class KeptSession(Reply):
    """A training that the board keeps. ``bytes`` is what its folder takes, ``checkpoint`` the step of its checkpoint, ``stream``
    the digest of a data set that comes as shards. ``fetched``: it is done, and a host has brought all of it home.
    """

    id: str
    state: State
    step: int
    steps: int
    records: int
    rc: int
    why: str
    program: str
    data: str
    stream: Digest | None = None
    bytes: int
    checkpoint: int | None
    fetched: bool = False


class Window(Reply):
    """What a streaming session needs. ``first`` is the shard in use, ``wanted`` the first that is not there, ``until`` the first
    that has no room, ``total`` how many there are, of ``steps`` steps each; they go through ``limit`` samples of a data set of
    ``samples``. ``folder`` is where they are brought to."""

    first: int
    wanted: int
    until: int
    total: int
    steps: int
    samples: int
    limit: int
    seed: int
    shuffle: bool
    digest: bytes
    folder: str


class Sessions(Reply):
    sessions: list[KeptSession]
    next: int
    total: int


class Discarded(Reply):
    removed: bool


class Empty(Reply):
    pass


class Limits(Reply):
    """``flops`` a second, and pairs of (bytes of the data, bytes a second), the smallest data first."""

    flops: int
    bandwidth: list[tuple[int, int]]
