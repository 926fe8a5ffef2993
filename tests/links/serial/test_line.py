"""The line to a board's own code: greeting, baud, files, and every fault at every byte."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BusyError, DeviceError, LinkLost, StorageError
from edgekit.links.deadline import Deadline
from edgekit.links.serial import SerialLink, exchange, files
from edgekit.links.serial import line as line_module
from edgekit.links.serial.files import digest, download, upload
from edgekit.links.serial.line import Line
from edgekit.program import Architecture
from edgekit.protocol import Client
from edgekit.sessions import Device
from tests.links.serial.board import Fault, Kind, Way, Wire, WirePort, board
from tests.runner.programs import Classifier, sample_data

ARCHITECTURE = {"x86_64": Architecture.X86_64, "aarch64": Architecture.AARCH64}


@pytest.fixture
def wire() -> Iterator[Wire]:
    with board() as one:
        yield one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes long here, so nothing is waited for long."""
    monkeypatch.setattr(exchange, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(line_module, "_HELLO_SECONDS", 0.1)
    monkeypatch.setattr("edgekit.protocol.client._PAUSE", 0.01)


def soon() -> Deadline:
    return Deadline.after(30)


def open_link(wire: Wire) -> SerialLink:
    line = Line(WirePort(wire))
    while not line.greet():
        pass
    return SerialLink(line)


def connected(wire: Wire) -> SerialLink:
    """As a user does who tries once more when the line is cut while it is opened."""
    try:
        return open_link(wire)
    except LinkLost:
        return open_link(wire)


def test_a_greeting_tells_what_the_board_has_room_for(wire: Wire) -> None:
    said: list[str] = []
    line = Line(WirePort(wire), said.append)
    assert line.greet()
    assert (line.cobs, line.most, line.window, line.baud) == (True, 2048, 8192, 115200)
    while not said:
        assert line.receive(0.1) is None
    assert said == ["serial_board"]


def test_without_a_greeting_the_console_does(wire: Wire) -> None:
    link = SerialLink(Line(WirePort(wire)))
    assert Client(link).echo("x" * 900) == "x" * 900
    assert not link.line.cobs


def test_the_rate_changes_where_both_sides_can(wire: Wire) -> None:
    link = open_link(wire)
    assert link.line.change_baud(921600)
    assert link.line.baud == 921600
    assert not link.line.change_baud(3_000_000)
    assert link.line.baud == 921600
    assert Client(link).echo("still here") == "still here"


def test_where_the_new_rate_fails_both_sides_go_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WirePort, "set_baud", lambda _, baud: baud != 460800)
    link = open_link(wire)
    assert not link.line.change_baud(460800)
    assert link.line.baud == 115200
    assert Client(link).echo("still here") == "still here"


def test_files_come_and_go_and_the_oldest_gives_way(tmp_path: Path) -> None:
    contents = {name: os.urandom(60_000) for name in "abc"}
    with board(kib=160) as wire:
        link = open_link(wire)
        for name, content in contents.items():
            assert list(upload(link.line, name, content, soon()))[-1] == len(content)
        assert digest(link.line, "a", soon()) is None
        back: list[int] = []
        assert download(link.line, "c", soon(), back.append) == contents["c"]
        assert back[-1] == 60_000
        with pytest.raises(StorageError, match="no file a"):
            download(link.line, "a", soon(), back.append)
        with pytest.raises(StorageError, match="no room for d"):
            list(upload(link.line, "d", bytes(200_000), soon()))
        list(upload(link.line, "nothing", b"", soon()))
        assert download(link.line, "nothing", soon(), back.append) == b""
        path = tmp_path / "file.bin"
        path.write_bytes(contents["b"])
        sent = wire.count["there"]
        name = link.put_file(path, soon())
        assert wire.count["there"] - sent > 60_000
        sent = wire.count["there"]
        assert link.put_file(path, soon()) == name
        assert wire.count["there"] - sent < 200
        assert link.missing(path, soon()) == 0


def test_an_upload_goes_on_where_it_was_cut(wire: Wire) -> None:
    content = os.urandom(200_000)
    wire.fault = Fault("cut", "there", 150_000)
    with pytest.raises(LinkLost):
        list(upload(open_link(wire).line, "file", content, soon()))
    sent = wire.count["there"]
    link = open_link(wire)
    list(upload(link.line, "file", content, soon()))
    assert wire.count["there"] - sent < 80_000
    assert download(link.line, "file", soon(), lambda _: None) == content


def test_a_program_that_is_pushed_leaves_the_loaded_one_alone(tmp_path: Path) -> None:
    """It lies in flash: in RAM there would be no room for it, and what needs room there does not drive it out."""
    with board(kib=160) as wire:
        first, _ = train(wire, False, tmp_path / "first")
        link = open_link(wire)
        pushing = upload(link.line, "new.ekp", os.urandom(400_000), soon())
        assert 0 < next(pushing) < 400_000
        wire.fault = Fault("cut", "there", wire.count["there"] + 9_000)
        with pytest.raises(LinkLost):
            list(pushing)
        link = open_link(wire)
        for name in "abc":
            list(upload(link.line, name, os.urandom(60_000), soon()))
        sent = wire.count["there"]
        again, _ = train(wire, False, tmp_path / "again")
        assert again == first
        assert wire.count["there"] - sent < 9_000, "the program was not sent again"
        link = open_link(wire)
        whole = os.urandom(400_000)
        list(upload(link.line, "new.ekp", whole, soon()))
        assert download(link.line, "new.ekp", soon(), lambda _: None) == whole


def test_a_program_that_is_not_what_was_said_is_none(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is the digest that is wrong: to the board that is the same as damage in its flash."""
    line, content = open_link(wire).line, os.urandom(20_000)
    with monkeypatch.context() as patch:
        patch.setattr(files, "Chunks", lambda name, data, _, right=files.Chunks: right(name, data, bytes(32)))
        for _ in range(2):
            with pytest.raises(DeviceError, match=r"does not hold new\.ekp as it was sent"):
                list(upload(line, "new.ekp", content, soon()))
            assert digest(line, "new.ekp", soon()) is None
    list(upload(line, "new.ekp", content, soon()))
    assert digest(line, "new.ekp", soon()) == hashlib.sha256(content).digest()


def test_a_program_for_now_displaces_none(tmp_path: Path) -> None:
    with board() as wire:
        link = open_link(wire)
        for name in ("one.ekp", "two.ekp"):
            list(upload(link.line, name, os.urandom(1000), soon()))
        inputs, targets = sample_data(8)
        with Device(SerialLink(link.line, for_now=True)) as device:
            program = Classifier().program(ARCHITECTURE[device.info.architecture])
            device.train(program, {"inputs": inputs, "targets": targets}, run_dir=tmp_path / "run").result()
        link = open_link(wire)
        assert None not in [digest(link.line, name, soon()) for name in ("one.ekp", "two.ekp")]


def test_every_record_of_quick_steps_comes_home(tmp_path: Path) -> None:
    """A message holds 15, and the board keeps 4096: whoever falls behind asks again at once."""
    inputs, targets = sample_data(40)
    with board() as wire, Device(open_link(wire)) as device:
        program = Classifier().program(ARCHITECTURE[device.info.architecture])
        session = device.train(program, {"inputs": inputs, "targets": targets}, epochs=460, run_dir=tmp_path / "run")
        assert [record.step for record in session] == list(range(1, 4601))


def test_a_session_that_waits_for_a_killed_host_gives_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs, targets = sample_data(40)
    data = {"inputs": inputs, "targets": targets}
    with board() as wire:
        killed = Device(open_link(wire))
        program = Classifier().program(ARCHITECTURE[killed.info.architecture])
        killed.train(program, data, stream=True, run_dir=tmp_path / "killed", spool=6000)
        killed.client.link.close()
        records, _ = train(wire, False, tmp_path / "next")
        killed.close()
    assert len(records) == 20
    assert "a host that is gone" in caplog.text


def test_a_session_that_runs_does_not_give_way(tmp_path: Path) -> None:
    inputs, targets = sample_data(40)
    with board() as wire:
        first = Device(open_link(wire))
        program = Classifier().program(ARCHITECTURE[first.info.architecture])
        first.train(program, {"inputs": inputs, "targets": targets}, epochs=10**8, run_dir=tmp_path / "first")
        first.client.link.close()
        with pytest.raises(BusyError) as refused:
            train(wire, False, tmp_path / "next")
        first.close()
        Client(open_link(wire)).stop()
    assert "edgekit stop wire" in refused.value.hint


def small_session(wire: Wire) -> None:
    """A bit of everything; whatever happens once on the line, it succeeds."""
    client = Client(connected(wire), lambda: open_link(wire), patience=20)
    assert client.echo("grüße") == "grüße"
    path = Path(os.environ["EDGEKIT_TEST_FILE"])
    name = client.put_file(path)
    back = path.with_name("back")
    client.get_file(name, back)
    assert back.read_bytes() == path.read_bytes()
    assert client.status().state == "idle"
    assert client.info().protocol


@pytest.mark.slow
@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", ["drop", "flip", "double", "cut"])
def test_every_fault_at_every_byte(kind: Kind, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(line_module, "_HELLO_SECONDS", 0.02)
    file = tmp_path / "file.bin"
    monkeypatch.setenv("EDGEKIT_TEST_FILE", str(file))
    file.write_bytes(os.urandom(60) + bytes(9))
    with board() as wire:
        for place in itertools.count():
            file.write_bytes(os.urandom(60) + bytes(9))  # or the board would have it already
            wire.count = {"there": 0, "back": 0}
            wire.fault = Fault(kind, way, place)
            small_session(wire)
            if not wire.fault.happened:  # it was over before that byte
                break
    assert place > 200


def train(wire: Wire, stream: bool, folder: Path) -> tuple[list[tuple[int, float]], dict[str, np.ndarray]]:
    """Records and parameters of a short training."""
    inputs, targets = sample_data(40)
    with Device(connected(wire), reopen=lambda: open_link(wire)) as device:
        program = Classifier().program(ARCHITECTURE[device.info.architecture])
        data = {"inputs": inputs, "targets": targets}
        session = device.train(program, data, epochs=2, seed=5, stream=stream, reset=True, run_dir=folder, spool=6000)
        records = [(record.step, record.loss) for record in session]
        return records, session.state()


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["drop", "flip", "double", "cut"])
def test_a_training_is_the_same_to_the_bit_whatever_happens_once(kind: Kind, stream: bool, tmp_path: Path) -> None:
    """No sample is lost, used twice, or used changed: losses and parameters would differ."""
    with board() as wire:
        records, state = train(wire, stream, tmp_path / "clean")
        totals = dict(wire.count)
    assert len(records) == 20
    chance = np.random.default_rng(7)
    for number in range(24):
        way: Way = "there" if number % 3 else "back"
        with board() as wire:
            wire.fault = Fault(kind, way, int(chance.integers(totals[way])))
            again, found = train(wire, stream, tmp_path / f"{number}")
        assert again == records, wire.fault
        for name, array in state.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name}: {wire.fault}")
