"""Firmware images over the line to a board's own code: slots, upload that goes on, and what the board refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.errors import DeviceError, IntegrityError, LinkLost
from edgekit.links.deadline import Deadline
from edgekit.links.serial import SerialLink, chunks, exchange, images
from edgekit.links.serial import line as line_module
from edgekit.links.serial.images import confirm_image, slots, try_image, upload_image
from edgekit.links.serial.line import Line
from edgekit.mcuboot import Image, sign_image
from tests.links.serial.board import Fault, Kind, Wire, WirePort, board

SLOTS = (0x60002000, 0x60022000)  #: firmware/tools/ram_flash.h
HEADER = 512


@pytest.fixture
def wire() -> Iterator[Wire]:
    with board() as one:
        yield one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(line_module, "_HELLO_SECONDS", 0.1)


def soon() -> Deadline:
    return Deadline.after(30)


def connected(wire: Wire) -> Line:
    line = Line(WirePort(wire))
    while not line.greet():
        pass
    return SerialLink(line).line


def image(slot: int = 1, size: int = 100_000) -> Image:
    program = bytes(HEADER) + os.urandom(size)
    return sign_image(program, HEADER, SLOTS[slot], (1, 2, 3, 4), Ed25519PrivateKey.generate())


def test_an_upload_is_listed_and_what_the_board_does_not_trust_never_runs(wire: Wire) -> None:
    line, one = connected(wire), image()
    assert slots(line, soon()) == []
    assert list(upload_image(line, one.data, soon()))[-1] == len(one.data)
    (found,) = slots(line, soon())
    assert (found.slot, found.version, found.hash) == (1, "1.2.3.4", one.hash)
    assert not found.bootable, "the board knows no key"
    with pytest.raises(IntegrityError, match="signature"):
        try_image(line, one.hash, soon())
    with pytest.raises(DeviceError, match="no such image"):
        try_image(line, bytes(32), soon())
    assert confirm_image(line, soon()) == slots(line, soon())


def test_what_cannot_run_in_the_free_slot_is_refused_at_once(wire: Wire) -> None:
    line = connected(wire)
    for data, why in (
        (image(0).data, "another slot"),
        (os.urandom(1000), "no firmware image"),
        (image(size=140_000).data, "larger"),
    ):
        sent = wire.count["there"]
        with pytest.raises(DeviceError, match=why):
            list(upload_image(line, data, soon()))
        assert wire.count["there"] - sent < 5000


def test_an_upload_goes_on_where_it_was_cut(wire: Wire) -> None:
    one = image()
    wire.fault = Fault("cut", "there", 80_000)
    with pytest.raises(LinkLost):
        list(upload_image(connected(wire), one.data, soon()))
    sent = wire.count["there"]
    line = connected(wire)
    list(upload_image(line, one.data, soon()))
    assert wire.count["there"] - sent < 40_000
    assert [s.hash for s in slots(line, soon())] == [one.hash]


def test_what_the_flash_does_not_hold_right_begins_anew(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is the digest that is wrong: to the board that is the same."""
    one, line = image(size=20_000), connected(wire)
    with monkeypatch.context() as patch:
        patch.setattr(images, "_Chunks", lambda data, _, right=images._Chunks: right(data, bytes(32)))
        for _ in range(2):
            with pytest.raises(IntegrityError, match="not what was sent"):
                list(upload_image(line, one.data, soon()))
            assert slots(line, soon()) == []
    list(upload_image(line, one.data, soon()))
    assert [s.hash for s in slots(line, soon())] == [one.hash]


def test_a_line_on_which_nothing_comes_back_is_lost_and_the_upload_goes_on(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mute(WirePort):
        """Nothing comes back any more once most of it is sent."""

        def read(self, seconds: float) -> bytes:
            data = super().read(seconds)
            return data if wire.count["there"] < 70_000 else b""

    monkeypatch.setattr(chunks, "QUIET_SECONDS", 1.0)
    one, line = image(), Line(Mute(wire))
    assert line.greet()
    with pytest.raises(LinkLost, match="no answer within 1 s"):
        list(upload_image(line, one.data, soon()))
    assert next(upload_image(connected(wire), one.data, soon())) > 60_000


@pytest.mark.parametrize("kind", ["drop", "flip", "double"])
@pytest.mark.parametrize("way", ["there", "back"])
def test_what_the_line_damages_is_sent_again(wire: Wire, kind: Kind, way: str) -> None:
    one = image(size=40_000)
    line = connected(wire)
    for number in range(6):
        wire.fault = Fault(kind, way, wire.count[way] + 40 + 37 * number)  # type: ignore[arg-type, index]
        list(upload_image(line, one.data, soon()))
        assert [s.hash for s in slots(line, soon())] == [one.hash]
        one = image(size=40_000)
