"""What comes over the link, however broken: the runner answers or ends, and never falls over."""

from __future__ import annotations

import random
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from smp.header import OP, Flag, Header, Version

from edgekit.protocol.client import PROTOCOL
from edgekit.protocol.status import Status
from tests.runner.make_golden import INFO, LOAD, SAVE, START, STATUS, STOP, TRAINING
from tests.runner.process import RESET, Runner, RunnerError
from tests.runner.programs import sample_data, slow_program, write_data

BUFFER = 16384


def message(body: bytes, op: int = OP.READ, group: int = TRAINING, command: int = STATUS, length: int | None = None) -> bytes:
    return struct.pack(">BBHHBB", 1 << 3 | op, 0, len(body) if length is None else length, group, 0, command) + body


def code(runner: Runner) -> int:
    """The group 0 error code of the next answer."""
    _, payload = runner.answer()
    assert payload["err"]["group"] == 0
    assert set(payload) == {"err"}
    return int(payload["err"]["rc"])


def alive(runner: Runner) -> None:
    assert runner.ask(0, group=0, d="still here") == {"r": "still here"}


# RFC 8949, appendix F: not well-formed.
NOT_WELL_FORMED = """
    18 19 1a 1b 1901 1a0102 1b01020304050607 38 58 78 98 9a01ff00 b8 d8 f8 f900 fa0000 fb000000 41 61 5affffffff00
    5bffffffffffffffff010203 7affffffff00 7b7fffffffffffffff010203 5f4100 7f6100 81 818181818181818181 8200 a1 a20102
    a100 a2000000 c0 5f 9f 9f0102 bf01020102 819f 9f8000 9f9f9f9f9fffffffff 9f819f819f9fffffff 1c 1d 1e 3c 5c 7c 9c bc
    dc fc f800 f801 f818 f81f 5f00ff 5f21ff 5f6100ff 5f80ff 5fa0ff 5fc000ff 5fe0ff 7f4100ff 5f5f4100ffff 7f7f6100ffff ff
    81ff 8200ff a1ff a1ff00 a100ff a20000ff 9f81ff 9f829f819f9fffffffff bf00ff bf000000ff 1f 3f df
"""


@pytest.mark.parametrize("item", NOT_WELL_FORMED.split())
def test_malformed_cbor_is_refused(runner: Runner, item: str) -> None:
    runner.send(message(b"\xa1\x61k" + bytes.fromhex(item)))
    assert code(runner) == 3
    runner.send(message(bytes.fromhex(item)))
    assert code(runner) == 3
    alive(runner)


@pytest.mark.parametrize(
    "value",
    ["00", "3bffffffffffffffff", "fb7ff8000000000000", "5f41aa41bbff", "7f61616161ff", "c11a514b67b0", "9f0102ff", "bf616100ff",
     "8181818100", "f7", "f0", "f820", "d9d9f7a0"],
)  # fmt: skip
def test_any_well_formed_value_of_an_unknown_key_passes(runner: Runner, value: str) -> None:
    for body in ("a1646b657931" + value, "bf646b657931" + value + "ff"):
        runner.send(message(bytes.fromhex(body)))
        assert runner.answer()[1]["state"] == "idle"


def test_nesting_is_bounded(runner: Runner) -> None:
    for depth, fits in ((6, True), (8, False), (4000, False)):
        runner.send(message(b"\xa1\x61k" + b"\x81" * depth + b"\x00"))
        header, payload = runner.answer()
        assert ("err" not in payload) == fits, header


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"])
def test_text_that_is_no_utf8_is_refused(runner: Runner, text: bytes) -> None:
    runner.send(message(b"\xa1\x61d" + bytes([0x60 | len(text)]) + text, op=OP.WRITE, group=0, command=0))
    assert code(runner) == 3


def test_versions_and_ops_that_are_no_requests_are_refused(runner: Runner) -> None:
    for first in (0x00, 0x02, 0x09, 0x0B, 0x0C, 0x0F, 0x10, 0x18):
        runner.send(bytes([first]) + message(b"\xa0")[1:])
        assert code(runner) == 8
    alive(runner)


def test_a_message_longer_than_the_buffer_is_refused_and_skipped(runner: Runner) -> None:
    assert runner.ask(6, group=0) == {"buf_size": BUFFER, "buf_count": 1}
    for length in (BUFFER - 7, 65535):
        runner.send(message(b"\xa0" * length))
        assert code(runner) == 7
        alive(runner)
    text = "a" * (BUFFER - 8 - 6)
    assert runner.ask(0, group=0, d=text)["r"] == text  # just fits


def test_messages_come_in_any_pieces(runner: Runner) -> None:
    request = message(b"\xa0") * 3
    for cut in range(1, len(request)):
        runner.send(request[:cut])
        runner.send(request[cut:])
        for _ in range(3):
            assert runner.answer()[1]["state"] == "idle"


def test_random_bytes_never_break_it(new_runner: Callable[..., Runner]) -> None:
    rng = random.Random(5)
    for _ in range(30):
        runner = new_runner()
        runner.send(rng.randbytes(rng.randrange(1, 4000)))
        assert runner.close() == 0


def test_damaged_messages_are_always_answered(runner: Runner) -> None:
    """Bit flips behind the header's length: each message gets exactly one answer."""
    rng = random.Random(6)
    body = b"\xa5\x64kind\x65train\x64data\x65/data\x66epochs\x01\x67shuffle\xf5\x64seed\x18\x2a"
    for _ in range(2000):
        damaged = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        group = rng.choice([0, 64, 64, 64])
        command = rng.randrange(13 if group else 9)  # the smp package knows no more of group 0
        if (group, command) == (0, RESET):
            continue  # which ends it
        runner.send(message(bytes(damaged), op=rng.choice([0, 2]), group=group, command=command))
        header, payload = runner.answer()
        assert header.op in (OP.READ_RSP, OP.WRITE_RSP)
        assert isinstance(payload, dict)
    alive(runner)


@pytest.mark.parametrize("size", range(9))
def test_the_end_of_input_ends_it(new_runner: Callable[..., Runner], size: int) -> None:
    runner = new_runner()
    runner.send(message(b"\xa0")[:size])
    assert runner.close() == 0


def test_info_says_what_it_runs_on(new_runner: Callable[..., Runner]) -> None:
    runner = new_runner("--threads", "2", "serve")
    info = runner.info()
    assert info["protocol"] == PROTOCOL
    assert (info["home"], info["disk"]) == (None, None)
    assert (info["threads"], info["pid"], info["backend"]) == (2, runner.process.pid, "cpu")
    assert info["memory"] > 1 << 28
    assert info["cores"] >= 1


def test_version_1_clients_are_told(runner: Runner) -> None:
    runner.send(bytes(Header(OP.READ, Version.V1, Flag(0), 1, TRAINING, 0, INFO)) + b"\xa0")
    assert code(runner) == 8


@pytest.mark.parametrize("end", ["eof", "SIGTERM", "SIGHUP"])
def test_it_ends_in_order_while_training(loaded: Runner, tmp_path: Path, end: str) -> None:
    data = write_data(tmp_path / "data", *sample_data(4000))
    checkpoint = tmp_path / "c.ekc"
    loaded.ask(START, kind="train", data=data, epochs=10**6, shuffle=False, seed=0, checkpoint=str(checkpoint))
    if end == "eof":
        assert loaded.close() == 0
    else:
        loaded.process.send_signal(getattr(signal, end))
        assert loaded.process.wait(20) == 0
    assert checkpoint.exists()
    assert not checkpoint.with_name("c.ekc.tmp").exists()


def test_reset_ends_it(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(4000))
    checkpoint = tmp_path / "c.ekc"
    loaded.ask(START, kind="train", data=data, epochs=10**6, shuffle=False, seed=0, checkpoint=str(checkpoint))
    with pytest.raises(RunnerError, match="10"):
        loaded.ask(RESET, group=0)
    assert loaded.ask(RESET, group=0, force=1) == {}
    assert loaded.process.wait(20) == 0
    assert checkpoint.exists()


def test_requests_behind_a_save_are_answered_in_order(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(4000))
    loaded.ask(START, kind="train", data=data, epochs=10**6, shuffle=False, seed=0)
    path = str(tmp_path / "c.ekc").encode()
    save = message(b"\xa1\x64path\x78" + bytes([len(path)]) + path, op=OP.WRITE, command=SAVE)
    for _ in range(100):
        loaded.send(save + message(b"\xa0") + save + message(b"\xa0"))
        assert [loaded.answer()[0].command_id for _ in range(4)] == [SAVE, STATUS, SAVE, STATUS]
    loaded.ask(STOP)
    loaded.finish()


def test_errors_of_the_training_group_have_their_number_and_their_text(runner: Runner) -> None:
    with pytest.raises(RunnerError) as caught:
        runner.ask(START, kind="evaluate", data="/nowhere")
    assert (caught.value.group, caught.value.rc) == (TRAINING, Status.NO_PROGRAM)
    assert caught.value.why == "no program is loaded"


def test_questions_are_answered_within_a_step(runner: Runner, command: tuple[str, ...], tmp_path: Path) -> None:
    """A step of many ops: status comes after an op, `save` after the step, and a stop when the step is done."""
    slow_program(width=768 if len(command) == 1 else 128).save(tmp_path / "slow.ekp")
    data = write_data(tmp_path / "data", sample_data(64 * 1000)[0])
    runner.ask(LOAD, path=str(tmp_path / "slow.ekp"))
    runner.ask(START, kind="predict", data=data, out=str(tmp_path / "out.npy"))

    steps = [runner.ask(STATUS)["step"] for _ in range(60)]
    assert len(set(steps)) < len(steps) / 3

    waited = 0
    for _ in range(10):
        before = runner.ask(STATUS)["step"]
        runner.ask(SAVE, path=str(tmp_path / "c.ekc"))
        waited += runner.ask(STATUS)["step"] > before
    assert waited >= 8  # not 10: one may come just between two steps

    before = runner.ask(STATUS)["step"]
    runner.ask(STOP)
    status = runner.finish()
    assert status["state"] == "stopped"
    assert status["step"] <= before + 1
