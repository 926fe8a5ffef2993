"""Writes golden/messages.json: requests and responses as bytes, made by the `smp` and `cbor2` packages from docs/protocol.md.

The C server (replay.c) must answer each request of a scene with exactly these bytes; a client must make these requests and
understand these responses. `replayed` is false where an answer depends on the machine or on a file: those are for clients alone.

    python -m tests.runner.make_golden
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cbor2
from smp.header import OP, Flag, Header, Version
from smp.os_management import EchoWriteRequest, MCUMgrParametersReadRequest

GOLDEN = Path(__file__).parent / "golden" / "messages.json"
TRAINING = 64
INFO, LOAD, START, STATUS, RECORDS, STOP, SAVE, METRICS, PROFILE, SENSORS = range(10)
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
    yield exchange("reset", "idle", "a command of group 0 that there is not", OP.WRITE, 5, {}, refused(8), group=0)
    yield exchange("unknown group", "idle", "not supported", OP.READ, 0, {}, refused(8), group=65)
    yield exchange("unknown command", "idle", "not supported", OP.READ, 99, {}, refused(8))
    yield exchange("wrong op", "idle", "status is read, not written", OP.WRITE, STATUS, {}, refused(8))
    yield exchange("no CBOR", "idle", "invalid value", OP.READ, STATUS, b"\xbf\x61", refused(3))
    yield exchange("no map", "idle", "invalid value", OP.READ, STATUS, [1], refused(3))
    yield exchange("bytes after the map", "idle", "invalid value", OP.READ, STATUS, b"\xa0\x00", refused(3))


def idle() -> Iterator[Vector]:
    scene = "idle"
    status = {"state": "idle", "id": 0, "step": 0, "steps": 0, "next": 0, "rc": 0, "why": ""}
    yield exchange("status, idle", scene, "nothing has run", OP.READ, STATUS, {}, status)
    yield exchange("status, empty body", scene, "no bytes are the empty map", OP.READ, STATUS, b"", status)
    yield exchange("status, indefinite map", scene, "an indefinite map is a map", OP.READ, STATUS, b"\xbf\xff", status)
    info = {"version": "0.1.0", "protocol": 1, "architecture": "x86_64", "backend": "cpu", "isa": "avx2", "threads": 2}
    yield exchange("info", scene, "the board", OP.READ, INFO, {}, info | {"cores": 4, "memory": 8 << 30, "pid": 4711})
    none = {"first": 0, "records": [], "next": 0, "state": "idle"}
    yield exchange("records, none", scene, "none yet", OP.READ, RECORDS, {"since": 0, "max": 100}, none)
    yield exchange("stop, idle", scene, "nothing to stop", OP.WRITE, STOP, {}, {})
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
    yield bad("records without since", RECORDS, {"max": 1}, missing("since", "unsigned integer"), OP.READ)
    yield bad("profile without since", PROFILE, {}, missing("since", "unsigned integer"), OP.READ)
    yield bad("sensors, path a number", SENSORS, {"power": 7}, missing("power", "text"))


def running() -> Iterator[Vector]:
    """Session 3 is at step 17 of 100; 5000 records were made since the runner's start."""
    scene = "running"
    status = {"state": "running", "id": 3, "step": 17, "steps": 100, "next": 5000, "rc": 0, "why": ""}
    yield exchange("status, running", scene, "session 3 is at step 17 of 100", OP.READ, STATUS, {}, status)
    busy = failure(3, "session 3 is running; stop it first")
    yield exchange("load, busy", scene, "BUSY", OP.WRITE, LOAD, {"path": "/model.ekp"}, busy)
    start = {"kind": "train", "data": "/data", "epochs": 3, "shuffle": True, "seed": 42}
    yield exchange("start, busy", scene, "BUSY", OP.WRITE, START, start, busy)

    def records(name: str, meaning: str, request: dict[str, int], first: int, count: int) -> Vector:
        rows = [record(i) for i in range(first, first + count)]
        response = {"first": first, "records": rows, "next": first + count, "state": "running"}
        return exchange(name, scene, meaning, OP.READ, RECORDS, request, response)

    yield records("records, last two", "from a cursor", {"since": 4998, "max": 100}, 4998, 2)
    yield records("records, one", "no more than asked for", {"since": 4990, "max": 1}, 4990, 1)
    yield records("records, older are gone", "the ring keeps 4096", {"since": 3, "max": 1}, 904, 1)
    yield records("records, at the end", "none yet", {"since": 5000, "max": 100}, 5000, 0)
    yield records("records, beyond the end", "the cursor comes back to what is next", {"since": 9000, "max": 100}, 5000, 0)
    room = (MESSAGE_BYTES - 8 - 64) // 128
    yield records("records, a full message", "as many as fit", {"since": 4000, "max": 4096}, 4000, room)
    yield exchange("stop", scene, "the session will stop", OP.WRITE, STOP, {}, {})


def ended() -> Iterator[Vector]:
    status = {"state": "failed", "id": 9, "step": 5, "steps": 10, "next": 5, "rc": 23, "why": "the loss became NaN at step 5"}
    yield exchange("status, failed", "failed", "DIVERGED at step 5", OP.READ, STATUS, {}, status)
    status = {"state": "done", "id": 4, "step": 7, "steps": 7, "next": 0, "rc": 0, "why": ""}
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
    label = failure(21, "targets.npy: sample 3 has 10, expected 0 to 9")
    yield exchange("start, bad label", "files", "BAD_LABEL", OP.WRITE, START, start, label, replayed=False)
    yield exchange("save", "files", "saved", OP.WRITE, SAVE, {"path": "/c.ekc"}, {"bytes": 256}, replayed=False)
    full = failure(40, "cannot write /c.ekc: No space left on device")
    yield exchange("save, disk full", "files", "NO_SPACE", OP.WRITE, SAVE, {"path": "/c.ekc"}, full, replayed=False)


def vectors() -> list[Vector]:
    return [*os_group(), *idle(), *bad_requests(), *running(), *ended(), *with_files()]


def text() -> str:
    return json.dumps([asdict(v) for v in vectors()], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(text(), encoding="utf-8")
