"""Writes golden/messages.json: requests and responses as bytes, made by the `smp` and `cbor2` packages from docs/protocol.md.

The C server (replay.c) must answer each request of a scene with exactly these bytes; a client must make these requests and
understand these responses. `replayed` is false where an answer depends on the machine or on a file: those are for clients alone.

    python -m tests.runner.make_golden
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cbor2
from smp.header import OP, Flag, Header, Version
from smp.os_management import EchoWriteRequest, MCUMgrParametersReadRequest, ResetWriteRequest

GOLDEN = Path(__file__).parent / "golden" / "messages.json"
TRAINING = 64
INFO, LOAD, START, STATUS, RECORDS, STOP, SAVE, METRICS, PROFILE, SENSORS, SESSIONS, RESUME, REMOVE, SHARDS = range(14)
FETCHED, DISCARD = 14, 15
LIMITS = 20
MESSAGE_BYTES = 2048  # the buffer that replay.c gives the server


@dataclass(frozen=True)
class Vector:
    """One exchange. ``scene`` is the state that replay.c sets up before it."""

    name: str
    scene: str
    meaning: str
    request: str
    response: str
    replayed: bool = True


class F32(float):
    """A float that travels as four bytes."""


def encode(value: Any) -> bytes:
    """CBOR with the heads of cbor2; F32 is the one thing that cbor2 cannot be told to write."""
    if isinstance(value, F32):
        return b"\xfa" + struct.pack(">f", value)
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    return cbor2.dumps(value)


def head(major: int, count: int) -> bytes:
    """The first byte and length of a map or array: those of an unsigned integer with another major type."""
    integer = cbor2.dumps(count)
    return bytes([major << 5 | integer[0]]) + integer[1:]


def message(op: OP, group: int, command: int, body: Any, sequence: int) -> bytes:
    payload = body if isinstance(body, bytes) else encode(body)
    return bytes(Header(op, Version.V2, Flag(0), len(payload), group, sequence, command)) + payload


def exchange(
    name: str,
    scene: str,
    meaning: str,
    op: OP,
    command: int,
    request: Any,
    response: Any,
    group: int = TRAINING,
    replayed: bool = True,
) -> Vector:
    sequence = sum(name.encode()) % 256
    asked = message(op, group, command, request, sequence)
    answered = message(OP(op + 1), group, command, response, sequence)
    return Vector(name, scene, meaning, asked.hex(), answered.hex(), replayed)


def failure(status: int, why: str) -> dict[str, Any]:
    return {"err": {"group": TRAINING, "rc": status}, "why": why}


def refused(code: int) -> dict[str, Any]:
    return {"err": {"group": 0, "rc": code}}


def record(cursor: int) -> list[Any]:
    """What replay.c puts into its ring: every number tells its place; every third step has no sensors."""
    n = cursor + 1
    sensors: list[Any] = [45000 - n, 1800000, 0x50000, 2500000] if n % 3 else [None] * 4
    times = [n * 1000000, n * 1000, n * 900000, n * 99000, n * 1000000000000]
    return [cursor, n, cursor // 10, F32(1 / n), *times, *sensors, n * 4096 if n % 2 else None]


def os_group() -> Iterator[Vector]:
    echo = bytes(EchoWriteRequest(d="hello ✓", sequence=7))
    answer = message(OP.WRITE_RSP, 0, 0, {"r": "hello ✓"}, 7)
    yield Vector("echo", "idle", "text comes back", echo.hex(), answer.hex())
    parameters = bytes(MCUMgrParametersReadRequest(sequence=8))
    answer = message(OP.READ_RSP, 0, 6, {"buf_size": MESSAGE_BYTES, "buf_count": 1}, 8)
    yield Vector("parameters", "idle", "the buffer's size", parameters.hex(), answer.hex())
    yield exchange("echo without d", "idle", "invalid value", OP.WRITE, 0, {}, refused(3), group=0)
    yield exchange("echo of a number", "idle", "invalid value", OP.WRITE, 0, {"d": 5}, refused(3), group=0)
    yield exchange("reset, force no number", "idle", "invalid value", OP.WRITE, 5, {"force": "yes"}, refused(3), group=0)
    yield exchange("statistics", "idle", "a command of group 0 that there is not", OP.READ, 2, {}, refused(8), group=0)
    yield exchange("unknown group", "idle", "not supported", OP.READ, 0, {}, refused(8), group=65)
    yield exchange("unknown command", "idle", "not supported", OP.READ, 99, {}, refused(8))
    yield exchange("wrong op", "idle", "status is read, not written", OP.WRITE, STATUS, {}, refused(8))
    yield exchange("no CBOR", "idle", "invalid value", OP.READ, STATUS, b"\xbf\x61", refused(3))
    yield exchange("no map", "idle", "invalid value", OP.READ, STATUS, [1], refused(3))
    yield exchange("bytes after the map", "idle", "invalid value", OP.READ, STATUS, b"\xa0\x00", refused(3))


def idle() -> Iterator[Vector]:
    scene = "idle"
    status = {"state": "idle", "id": 0, "step": 0, "steps": 0, "next": 0, "rc": 0, "why": "", "session": None, "cache": None}
    yield exchange("status, idle", scene, "nothing has run", OP.READ, STATUS, {}, status)
    yield exchange("status, empty body", scene, "no bytes are the empty map", OP.READ, STATUS, b"", status)
    yield exchange("status, indefinite map", scene, "an indefinite map is a map", OP.READ, STATUS, b"\xbf\xff", status)
    info = {"version": "0.1.0", "protocol": 4, "architecture": "x86_64", "backend": "cpu", "isa": "avx2", "threads": 2}
    info |= {"cores": 4, "memory": 8 << 30, "pid": 4711, "home": None, "executable": "/opt/edgekit-runner", "instance": 99}
    yield exchange("info", scene, "the board", OP.READ, INFO, {}, info | {"disk": None})
    none = {"first": 0, "records": [], "next": 0, "left": 0, "state": "idle"}
    yield exchange("records, none", scene, "none yet", OP.READ, RECORDS, {"since": 0, "max": 100}, none)
    yield exchange("stop, idle", scene, "nothing to stop", OP.WRITE, STOP, {}, {})
    why = "no session runs whose data comes as shards"
    yield exchange("shards, idle", scene, "NO_SESSION", OP.WRITE, SHARDS, {}, failure(5, why))
    yield exchange("sensors", scene, "unknown keys are ignored", OP.WRITE, SENSORS, {"temperature": "/t", "humidity": 1}, {})
    yield exchange("sensors, none", scene, "all unknown again", OP.WRITE, SENSORS, {}, {})
    no_program = failure(4, "no program is loaded")
    start = {"kind": "train", "data": "/data", "epochs": 3, "shuffle": True, "seed": 42}
    yield exchange("start without program", scene, "NO_PROGRAM", OP.WRITE, START, start, no_program)
    yield exchange("save without program", scene, "NO_PROGRAM", OP.WRITE, SAVE, {"path": "/c.ekc"}, no_program)
    why = "no evaluate session has been finished since the program was loaded"
    yield exchange("metrics, none", scene, "NO_SESSION", OP.READ, METRICS, {}, failure(5, why))
    why = 'no session was started with "profile" since the program was loaded'
    yield exchange("profile, none", scene, "NO_SESSION", OP.READ, PROFILE, {"since": 0}, failure(5, why))
    homeless = failure(2, "this runner keeps no sessions: it was started without a home")
    kept = start | {"session": "a", "program": "/store/p"}
    yield exchange("start, kept, no home", scene, "BAD_REQUEST", OP.WRITE, START, kept, homeless)
    yield exchange("records of a session, no home", scene, "", OP.READ, RECORDS, {"since": 0, "session": "a"}, homeless)
    yield exchange("sessions, no home", scene, "BAD_REQUEST", OP.READ, SESSIONS, {"skip": 0}, homeless)
    yield exchange("resume, no home", scene, "BAD_REQUEST", OP.WRITE, RESUME, {"session": "a"}, homeless)
    yield exchange("remove, no home", scene, "BAD_REQUEST", OP.WRITE, REMOVE, {"session": "a"}, homeless)
    yield exchange("fetched, no home", scene, "BAD_REQUEST", OP.WRITE, FETCHED, {"session": "a"}, homeless)
    yield exchange("discard, no home", scene, "BAD_REQUEST", OP.WRITE, DISCARD, {"path": "store/a"}, homeless)
    yield exchange("stop a session, idle", scene, "nothing to stop", OP.WRITE, STOP, {"session": "a"}, {})
    why = "cannot open /nowhere.ekp: No such file or directory"
    yield exchange("load, no file", scene, "NOT_FOUND", OP.WRITE, LOAD, {"path": "/nowhere.ekp"}, failure(41, why))


def bad_requests() -> Iterator[Vector]:
    start: dict[str, Any] = {"kind": "train", "data": "/data", "epochs": 3, "shuffle": True, "seed": 42}

    def bad(name: str, command: int, request: dict[str, Any], why: str, op: OP = OP.WRITE) -> Vector:
        return exchange(name, "idle", "BAD_REQUEST", op, command, request, failure(2, why))

    def missing(key: str, kind: str) -> str:
        return f'"{key}" is missing or is no {kind}'

    path = '"path" is empty, longer than 1023 bytes, or holds a zero byte'
    yield bad("load without path", LOAD, {}, missing("path", "text"))
    yield bad("load, path a number", LOAD, {"path": 5}, missing("path", "text"))
    yield bad("load, path empty", LOAD, {"path": ""}, path)
    yield bad("load, path with a zero", LOAD, {"path": "a\0b"}, path)
    yield bad("load, path too long", LOAD, {"path": "a" * 1024}, path)
    yield bad("start, unknown kind", START, start | {"kind": "dance"}, '"kind" is dance, not train, evaluate or predict')
    for key, kind in (("epochs", "unsigned integer"), ("seed", "unsigned integer"), ("shuffle", "boolean"), ("data", "text")):
        yield bad(f"start without {key}", START, {k: v for k, v in start.items() if k != key}, missing(key, kind))
    yield bad("start, epochs a float", START, start | {"epochs": 1.5}, missing("epochs", "unsigned integer"))
    yield bad("start, epochs negative", START, start | {"epochs": -1}, missing("epochs", "unsigned integer"))
    yield bad("start, no epochs", START, start | {"epochs": 0}, '"epochs" is 0')
    yield bad("start, shuffle a number", START, start | {"shuffle": 1}, missing("shuffle", "boolean"))
    seed = '"seed" is 4294967296, at most 4294967295 is possible'
    yield bad("start, seed too large", START, start | {"seed": 1 << 32}, seed)
    resume = '"resume" goes with train, and not with "state"'
    yield bad("resume and state", START, start | {"resume": "/a", "state": "/b"}, resume)
    yield bad("resume evaluate", START, {"kind": "evaluate", "data": "/data", "resume": "/a"}, resume)
    yield bad("predict without out", START, {"kind": "predict", "data": "/data"}, missing("out", "text"))
    kept = start | {"session": "a", "program": "/store/p"}
    name = '"session" is not 1 to 64 of A-Z a-z 0-9 . _ - beginning without a dot'
    for word in (".", "..", "a/b", "ä", "x" * 65, "a b"):
        yield bad(f"session named {word}", START, kept | {"session": word}, name)
    yield bad("session, a number", STOP, {"session": 1}, missing("session", "text"))
    yield bad("kept, no program", START, {k: v for k, v in kept.items() if k != "program"}, missing("program", "text"))
    only = '"session" goes with train, and has a checkpoint of its own'
    yield bad("kept, own checkpoint", START, kept | {"checkpoint": "/c.ekc"}, only)
    evaluate = {"kind": "evaluate", "data": "/data", "session": "a", "program": "/store/p"}
    yield bad("kept, evaluate", START, evaluate, only)
    stream = {"samples": 803, "steps": 4, "ahead": 3, "digest": bytes(32), "folder": "/spool"}
    streamed = {k: v for k, v in start.items() if k != "data"} | {"stream": stream}
    rule = '"stream" needs samples, steps, and at least 2 ahead; its folder is a kept session\'s own'
    for key in ("samples", "steps"):
        yield bad(f"stream, no {key}", START, streamed | {"stream": stream | {key: 0}}, rule)
    yield bad("stream, one ahead", START, streamed | {"stream": stream | {"ahead": 1}}, rule)
    most = '"ahead" is 17, at most 16 is possible'
    yield bad("stream, much ahead", START, streamed | {"stream": stream | {"ahead": 17}}, most)
    length = missing("digest", "byte string of the right length")
    yield bad("stream, short digest", START, streamed | {"stream": stream | {"digest": b"1"}}, length)
    yield bad("stream, digest a text", START, streamed | {"stream": stream | {"digest": "1" * 32}}, length)
    folderless = {k: v for k, v in stream.items() if k != "folder"}
    yield bad("stream, no folder", START, streamed | {"stream": folderless}, missing("folder", "text"))
    yield bad("stream, a number", START, streamed | {"stream": 5}, missing("samples", "unsigned integer"))
    rule = '"cache" has a storage of float32, float16 or int8; its path is a kept session\'s own'
    cache = {"storage": "float32", "path": "/cache"}
    yield bad("cache, another storage", START, start | {"cache": cache | {"storage": "int4"}}, rule)
    yield bad("cache, no path", START, start | {"cache": {"storage": "float16"}}, missing("path", "text"))
    yield bad("cache, a budget below 0", START, start | {"cache": cache | {"budget": -1}}, missing("budget", "unsigned integer"))
    yield bad("kept, a cache of its own", START, kept | {"cache": cache}, rule)
    evaluate = {"kind": "evaluate", "data": "/data", "cache": cache}
    yield bad("cache, evaluate", START, evaluate, '"cache" goes with train')
    rule = '"stream" needs samples, steps, and at least 2 ahead; its folder is a kept session\'s own'
    yield bad("kept, a folder of its own", START, kept | {"stream": stream}, rule)
    yield bad("resume nothing", RESUME, {}, missing("session", "text"))
    yield bad("remove nothing", REMOVE, {}, missing("session", "text"))
    yield bad("fetched nothing", FETCHED, {}, missing("session", "text"))
    yield bad("discard nothing", DISCARD, {}, missing("path", "text"))
    yield bad("records without since", RECORDS, {"max": 1}, missing("since", "unsigned integer"), OP.READ)
    yield bad("profile without since", PROFILE, {}, missing("since", "unsigned integer"), OP.READ)
    yield bad("sensors, path a number", SENSORS, {"power": 7}, missing("power", "text"))


def running() -> Iterator[Vector]:
    """Session 3 is at step 17 of 100; 5000 records were made since the runner's start."""
    scene = "running"
    status = {"state": "running", "id": 3, "step": 17, "steps": 100, "next": 5000, "rc": 0, "why": ""}
    status |= {"session": None, "cache": None}
    yield exchange("status, running", scene, "session 3 is at step 17 of 100", OP.READ, STATUS, {}, status)
    busy = failure(3, "session 3 is running; stop it first")
    yield exchange("load, busy", scene, "BUSY", OP.WRITE, LOAD, {"path": "/model.ekp"}, busy)
    start = {"kind": "train", "data": "/data", "epochs": 3, "shuffle": True, "seed": 42}
    yield exchange("start, busy", scene, "BUSY", OP.WRITE, START, start, busy)

    def records(name: str, meaning: str, request: dict[str, int], first: int, count: int) -> Vector:
        rows = [record(i) for i in range(first, first + count)]
        left = 5000 - first - count
        response = {"first": first, "records": rows, "next": first + count, "left": left, "state": "running"}
        return exchange(name, scene, meaning, OP.READ, RECORDS, request, response)

    yield records("records, last two", "from a cursor", {"since": 4998, "max": 100}, 4998, 2)
    yield records("records, one", "no more than asked for", {"since": 4990, "max": 1}, 4990, 1)
    yield records("records, older are gone", "the ring keeps 4096", {"since": 3, "max": 1}, 904, 1)
    yield records("records, at the end", "none yet", {"since": 5000, "max": 100}, 5000, 0)
    yield records("records, beyond the end", "the cursor comes back to what is next", {"since": 9000, "max": 100}, 5000, 0)
    room = (MESSAGE_BYTES - 8 - 80) // 128
    yield records("records, a full message", "as many as fit", {"since": 4000, "max": 4096}, 4000, room)
    other = failure(5, "session other is not the one that runs")
    yield exchange("stop another one", scene, "NO_SESSION", OP.WRITE, STOP, {"session": "other"}, other)
    busy = bytes(ResetWriteRequest(sequence=9))
    answer = message(OP.WRITE_RSP, 0, 5, refused(10), 9)
    yield Vector("reset, busy", scene, "a session runs", busy.hex(), answer.hex())
    forced = bytes(ResetWriteRequest(force=1, sequence=10))
    yield Vector("reset, forced", scene, "it is stopped first", forced.hex(), message(OP.WRITE_RSP, 0, 5, {}, 10).hex())
    why = "no session runs whose data comes as shards"
    yield exchange("shards, none", scene, "NO_SESSION: its data is on the board", OP.WRITE, SHARDS, {}, failure(5, why))
    yield exchange("stop", scene, "the session will stop", OP.WRITE, STOP, {}, {})


def streaming() -> Iterator[Vector]:
    """Session 3 has done 17 of 100 steps of 8 samples, in shards of 4 steps. Shards 4 and 5 are there, and room for 3."""
    scene = "streaming"
    window: dict[str, Any] = {"first": 4, "wanted": 6, "until": 7, "total": 25, "steps": 4, "samples": 803, "limit": 800}
    window |= {"seed": 42, "shuffle": True, "digest": bytes(range(32)), "folder": "/home/sessions/gnu/spool"}
    yield exchange("shards", scene, "what is wanted", OP.WRITE, SHARDS, {}, window)
    brought: dict[str, Any] = {"number": 5, "bytes": 1000, "sha": bytes(32)}
    yield exchange("shards, again", scene, "it is there already", OP.WRITE, SHARDS, brought, window)
    early = failure(2, "there is no room for shard 7 yet, only below 7")
    yield exchange("shards, too early", scene, "BAD_REQUEST", OP.WRITE, SHARDS, brought | {"number": 7}, early)
    lost = failure(41, "cannot open /home/sessions/gnu/spool/6: No such file or directory")
    yield exchange("shards, nothing there", scene, "NOT_FOUND", OP.WRITE, SHARDS, brought | {"number": 6}, lost)
    short = failure(2, '"sha" is missing or is no byte string of the right length')
    yield exchange("shards, short digest", scene, "BAD_REQUEST", OP.WRITE, SHARDS, brought | {"sha": b"12"}, short)
    status = {
        "state": "running",
        "id": 3,
        "step": 17,
        "steps": 100,
        "next": 0,
        "rc": 0,
        "why": "",
        "session": None,
        "cache": None,
    }
    yield exchange("status, streaming", scene, "it has what it needs", OP.READ, STATUS, {}, status)
    waiting = status | {"state": "waiting"}
    yield exchange("status, waiting", "waiting", "shard 4 is not there", OP.READ, STATUS, {}, waiting)
    none = {"first": 0, "records": [], "next": 0, "left": 0, "state": "waiting"}
    yield exchange("records, waiting", "waiting", "none yet", OP.READ, RECORDS, {"since": 0, "max": 9}, none)
    window |= {"wanted": 4}
    yield exchange("shards, waiting", "waiting", "the one in use is wanted", OP.WRITE, SHARDS, {}, window)


def ended() -> Iterator[Vector]:
    status = {"state": "failed", "id": 9, "step": 5, "steps": 10, "next": 5, "rc": 23, "why": "the loss became NaN at step 5"}
    status |= {"session": None, "cache": None}
    yield exchange("status, failed", "failed", "DIVERGED at step 5", OP.READ, STATUS, {}, status)
    status = {"state": "done", "id": 4, "step": 7, "steps": 7, "next": 0, "rc": 0, "why": "", "session": None, "cache": None}
    yield exchange("status, done", "done", "an evaluation is done", OP.READ, STATUS, {}, status)
    metrics = {"loss": 0.3, "correct": 51, "counted": 55, "samples": 56}
    yield exchange("metrics", "done", "51 of 55 right, one ignored", OP.READ, METRICS, {}, metrics)
    ops = {"first": 1, "ops": [[1, 7, 1000000], [2, 0, 0]], "next": 3, "total": 3}
    yield exchange("profile", "done", "from op 1", OP.READ, PROFILE, {"since": 1}, ops)
    ops = {"first": 3, "ops": [], "next": 3, "total": 3}
    yield exchange("profile, at the end", "done", "no more ops", OP.READ, PROFILE, {"since": 50}, ops)


def with_files() -> Iterator[Vector]:
    """Answers that depend on a Program: their form, for clients."""
    loaded = {"sha": bytes(range(32)), "arena": 4096, "state": 128, "constants": 64, "scratch": 1024, "prepared": 0}
    yield exchange("load", "files", "loaded", OP.WRITE, LOAD, {"path": "/model.ekp"}, loaded, replayed=False)
    start = {"kind": "train", "data": "/data", "epochs": 3, "shuffle": True, "seed": 42, "checkpoint": "/c.ekc", "every": 10}
    started = {"id": 1, "steps": 30, "samples": 83, "dropped": 3, "next": 0}
    yield exchange("start", "files", "started", OP.WRITE, START, start, started, replayed=False)
    resumed = started | {"next": 12}
    yield exchange("resume", "files", "from step 10", OP.WRITE, RESUME, {"session": "gnu"}, resumed, replayed=False)
    label = failure(21, "targets.npy: sample 3 has 10, expected 0 to 9")
    yield exchange("start, bad label", "files", "BAD_LABEL", OP.WRITE, START, start, label, replayed=False)
    yield exchange("save", "files", "saved", OP.WRITE, SAVE, {"path": "/c.ekc"}, {"bytes": 256}, replayed=False)
    full = failure(40, "cannot write /c.ekc: No space left on device")
    yield exchange("save, disk full", "files", "NO_SPACE", OP.WRITE, SAVE, {"path": "/c.ekc"}, full, replayed=False)


KEPT: dict[str, Any] = {
    "kind": "train", "data": "/store/d.data", "epochs": 5, "shuffle": True, "seed": 7, "program": "/store/p",
}  # fmt: skip


def packed(cursor: int) -> bytes:
    """A record as it lies in a session's file (docs/session-host.md): ``record(cursor)`` again."""
    _, step, epoch, loss, step_ns, load_ns, compute_ns, update_ns, time_ns, *sensors, rss = record(cursor)
    known = sum(1 << i for i, value in enumerate([*sensors, rss]) if value is not None)
    times = (step, step_ns, load_ns, compute_ns, update_ns, time_ns, rss or 0)
    body = struct.pack("<7QIf4qI24x", *times, epoch, loss, *(v or 0 for v in sensors), known)
    return body + struct.pack("<I", zlib.crc32(body))


def write_session(folder: Path, number: int, records: int, result: dict[str, Any] | None, tail: bytes = b"") -> None:
    """A session's folder: the start was answered with 30 steps."""
    folder.mkdir(parents=True)
    body = encode(KEPT | {"session": folder.name})
    head = b"EKSESS1\n" + struct.pack("<QQQIIII12x", number, 0, 30, 3, 83, 3, len(body))
    (folder / "request").write_bytes(head + struct.pack("<I", zlib.crc32(head + body)) + body)
    (folder / "records").write_bytes(b"".join(map(packed, range(records))) + tail)
    if result is not None:
        (folder / "result").write_bytes(encode(result))
    if folder.name == "zebra":
        (folder / "fetched").touch()


def write_home(home: Path) -> None:
    """The home folder of the scene "home"."""
    done = {"state": "done", "step": 30, "steps": 30, "rc": 0, "why": ""}
    failed = {"state": "failed", "step": 4, "steps": 30, "rc": 40, "why": "the disk is full"}
    write_session(home / "sessions" / "zebra", 1, 30, done)
    write_session(home / "sessions" / "ape", 2, 4, failed)
    write_session(home / "sessions" / "gnu", 5, 2, None, tail=b"torn")
    (home / "sessions" / "empty").mkdir()
    damaged = home / "sessions" / "damaged" / "request"
    damaged.parent.mkdir()
    damaged.write_bytes(b"EKSESS1\n" + bytes(80))
    store = home / "store"
    (store / "d.data").mkdir(parents=True)
    (store / "d.data" / "inputs.npy").symlink_to("../x")
    for name in ("p", "x", "y"):
        (store / name).touch()


def at_home() -> Iterator[Vector]:
    """A home folder with sessions, and no program loaded."""
    scene = "home"
    base = {"program": "/store/p", "data": "/store/d.data", "stream": None}

    def row(name: str, state: str, step: int, records: int, rc: int, why: str, extra: int) -> dict[str, Any]:
        size = 64 + len(encode(KEPT | {"session": name})) + records * 128 + extra
        numbers = {"id": name, "state": state, "step": step, "steps": 30, "records": records, "rc": rc, "why": why}
        return numbers | base | {"bytes": size, "checkpoint": None, "fetched": name == "zebra"}

    done = len(encode({"state": "done", "step": 30, "steps": 30, "rc": 0, "why": ""}))
    failed = len(encode({"state": "failed", "step": 4, "steps": 30, "rc": 40, "why": "the disk is full"}))
    rows = [row("zebra", "done", 30, 30, 0, "", done), row("ape", "failed", 4, 4, 40, "the disk is full", failed)]
    rows.append(row("gnu", "interrupted", 2, 2, 0, "", 4))
    listed = {"sessions": rows, "next": 4, "total": 4}
    yield exchange("sessions", scene, "in their order; a damaged one is passed over", OP.READ, SESSIONS, {"skip": 0}, listed)
    listed = {"sessions": rows[2:], "next": 4, "total": 4}
    yield exchange("sessions, from the third", scene, "", OP.READ, SESSIONS, {"skip": 3}, listed)
    listed = {"sessions": [], "next": 4, "total": 4}
    yield exchange("sessions, at the end", scene, "", OP.READ, SESSIONS, {"skip": 9}, listed)

    def records(name: str, session: str, since: int, first: int, count: int, state: str) -> Vector:
        left = {"gnu": 2, "zebra": 30, "ape": 4}[session] - first - count
        rows = [record(i) for i in range(first, first + count)]
        answer = {"first": first, "records": rows, "next": first + count, "left": left}
        request = {"since": since, "max": 100, "session": session}
        return exchange(name, scene, "from its file", OP.READ, RECORDS, request, answer | {"state": state})

    yield records("records of a session", "gnu", 0, 0, 2, "interrupted")
    yield records("records of a session, the last", "zebra", 29, 29, 1, "done")
    yield records("records of a session, beyond the end", "ape", 9, 4, 0, "failed")
    room = (MESSAGE_BYTES - 8 - 80) // 128
    yield records("records of a session, as many as fit", "zebra", 1, 1, room, "done")
    unknown = failure(5, "there is no session fox")
    yield exchange("records of no session", scene, "NO_SESSION", OP.READ, RECORDS, {"since": 0, "session": "fox"}, unknown)
    yield exchange("resume no session", scene, "NO_SESSION", OP.WRITE, RESUME, {"session": "fox"}, unknown)
    over = failure(5, "session zebra is done: there is nothing to go on with")
    yield exchange("resume a done session", scene, "NO_SESSION", OP.WRITE, RESUME, {"session": "zebra"}, over)
    started = {"id": 3, "steps": 30, "samples": 83, "dropped": 3, "next": 0}
    again = KEPT | {"session": "ape"}
    yield exchange("start once more", scene, "answered as the first time", OP.WRITE, START, again, started)
    otherwise = failure(2, "there is a session ape already, started otherwise")
    yield exchange("start otherwise", scene, "BAD_REQUEST", OP.WRITE, START, again | {"seed": 8}, otherwise)
    gone = failure(41, "cannot open /store/p: No such file or directory")
    yield exchange("start, no program", scene, "NOT_FOUND", OP.WRITE, START, KEPT | {"session": "new"}, gone)
    yield exchange("resume, no program", scene, "NOT_FOUND", OP.WRITE, RESUME, {"session": "gnu"}, gone)
    yield exchange("remove", scene, "it is gone", OP.WRITE, REMOVE, {"session": "damaged"}, {})
    yield exchange("remove once more", scene, "it is not there", OP.WRITE, REMOVE, {"session": "damaged"}, {})
    listed = {"sessions": rows, "next": 3, "total": 3}
    yield exchange("sessions, without the removed", scene, "", OP.READ, SESSIONS, {}, listed)
    yield exchange("fetched", scene, "it may go", OP.WRITE, FETCHED, {"session": "zebra"}, {})
    more = failure(5, "session ape is not done: there is more to come")
    yield exchange("fetched, not done", scene, "NO_SESSION", OP.WRITE, FETCHED, {"session": "ape"}, more)
    yield exchange("fetched no session", scene, "NO_SESSION", OP.WRITE, FETCHED, {"session": "fox"}, unknown)

    def discard(name: str, path: str, removed: bool, **keys: int) -> Vector:
        return exchange(name, scene, "", OP.WRITE, DISCARD, {"path": path} | keys, {"removed": removed})

    yield discard("discard what a session needs", "store/p", False)
    yield discard("discard a data set that a session needs", "store/d.data", False)
    yield discard("discard what a data set has", "store/x", False)
    yield discard("discard what was just used", "store/y", False, unused=60)
    yield discard("discard what nothing needs", "store/y", True)
    yield discard("discard what is not there", "store/y", True)
    yield discard("discard a session to be resumed", "sessions/ape", False)
    yield discard("discard a session that is at home", "sessions/zebra", True)
    for path in ("store/", "store/..", "work/a/b", "run/lock", "/store/x"):
        why = f'"path" is {path}, not store/, work/, sessions/ or releases/ and one name'
        yield exchange(f"discard {path}", scene, "BAD_REQUEST", OP.WRITE, DISCARD, {"path": path}, failure(2, why))
    listed = {"sessions": rows[1:], "next": 2, "total": 2}
    yield exchange("sessions, without the discarded", scene, "", OP.READ, SESSIONS, {}, listed)


def vectors() -> list[Vector]:
    return [*os_group(), *idle(), *bad_requests(), *running(), *streaming(), *ended(), *at_home(), *with_files()]


def text() -> str:
    return json.dumps([asdict(v) for v in vectors()], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(text(), encoding="utf-8")
