"""Firmware updates of a virtual Cortex-M7: by the command line, by another SMP tool, cut, broken, forged, unconfirmed."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from edgekit.firmware.build import IMAGE_HEADER, build
from smpclient import SMPClient
from smpclient.generics import success
from smpclient.mcuboot import IMAGE_TLV, ImageInfo
from smpclient.requests.image_management import ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import ResetWrite
from smpclient.transport.serial import SMPSerialTransport

import edgekit
from edgekit.cli.main import run
from edgekit.links import Deadline, Moved, open_link
from edgekit.links.serial import SerialLink
from edgekit.links.serial.images import Slot, slots, try_image, upload_image
from edgekit.mcuboot import Image, make_image, public_bytes, sign_image, signing_key
from edgekit.mcuboot.elf import flat
from edgekit.sessions.firmware_flash import execute_firmware
from edgekit.sessions.firmware_plan import plan_firmware
from edgekit.sessions.flash_events import Event
from edgekit.virtual import M7, Settings, start, stop, virtual_boards
from edgekit.virtual.flash import TARGET
from tests.support.microcontroller import virtual_m7
from tests.support.proxy import Proxy
from tests.support.pty import port_to

pytestmark = pytest.mark.slow

UNDEFINED = b"\xff\xde"  #: udf #255


@pytest.fixture(autouse=True)
def board(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new virtual microcontroller, which runs this version's firmware in slot 0."""
    folder = tmp_path_factory.getbasetemp() / "firmware-config"  # one key, so one build, for all
    monkeypatch.setenv("EDGEKIT_CONFIG", str(folder))
    with virtual_m7():
        yield


def soon() -> Deadline:
    return Deadline.after(300)


def small(slot: int, key: Ed25519PrivateKey | None = None) -> Image:
    """Not firmware at all, and so quickly sent."""
    return sign_image(
        bytes(IMAGE_HEADER) + UNDEFINED * 4000, IMAGE_HEADER, make_image(TARGET, slot).address, (1, 0, 0, 0), key or signing_key()
    )


def other(slot: int, number: int, broken: bool = False) -> Image:
    """This version's firmware with a build number; ``broken``: its first instruction is none."""
    program = bytearray(flat(build("firmware", TARGET, slot=slot, key=public_bytes(signing_key())).read_bytes())[1])
    like = make_image(TARGET, slot)
    if broken:
        struct.pack_into("<I", program, IMAGE_HEADER + 4, like.address + len(program) | 1)
        program += UNDEFINED * 8
    return sign_image(bytes(program), IMAGE_HEADER, like.address, (*like.version[:3], number), signing_key())


def saved(image: Image, folder: Path) -> Path:
    path = folder / f"{image.release}.bin"
    path.write_bytes(image.data)
    return path


def line() -> SerialLink:
    link = open_link(M7)
    assert isinstance(link, SerialLink)
    return link


def state() -> dict[int, Slot]:
    link = line()
    try:
        return {slot.slot: slot for slot in slots(link.line, soon())}
    finally:
        link.close()


def flags(slot: Slot) -> str:
    return " ".join(word for word in ("bootable", "pending", "confirmed", "active") if getattr(slot, word))


def why_it_started() -> str:
    with edgekit.connect(M7) as device:
        return str(device.info.reset)


def ask(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> Any:
    capsys.readouterr()
    got = run([*map(str, words), "--json"])
    captured = capsys.readouterr()
    assert got == code, captured.err
    return json.loads(captured.out)


def test_flash_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new board has this version already; another image goes to the other slot, and `--rollback` returns."""
    assert [step["step"] for step in ask(capsys, "flash", M7)["plan"]["steps"]] == ["health"]
    image = other(1, 7)
    plan = ask(capsys, "flash", M7, "--runner", saved(image, tmp_path), "--dry-run")
    assert [step["step"] for step in plan["steps"]] == ["upload", "trial", "reset", "health", "confirm"]
    assert plan["release"] == image.hash.hex()
    assert list(state()) == [0], "a plan changes nothing"
    done = ask(capsys, "flash", M7, "--runner", saved(image, tmp_path))
    assert (done["result"]["release"], done["result"]["previous"]) == (image.hash.hex(), plan["current"])
    assert done["result"]["info"]["reset"] == "reset on request"
    assert {number: flags(slot) for number, slot in state().items()} == {0: "bootable", 1: "bootable confirmed active"}
    assert state()[1].version == "0.1.0.7"
    ask(capsys, "flash", M7, "--rollback")
    assert {number: flags(slot) for number, slot in state().items()} == {0: "bootable confirmed active", 1: "bootable"}
    again = ask(capsys, "flash", M7, "--runner", saved(image, tmp_path))
    assert "upload" not in [step["step"] for step in again["plan"]["steps"]], "it is there already"
    stop(M7)
    start(Settings.from_profile(M7, machine=M7))
    assert flags(state()[1]) == "bootable confirmed active", "its flash outlives the power"


def test_firmware_that_does_not_start_goes_back_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = ask(capsys, "flash", M7, "--runner", saved(other(1, 1, broken=True), tmp_path), code=7)["error"]
    assert error["kind"] == "FlashFailed"
    assert "undefined instruction" in error["message"]
    assert "back on 0.1.0 in slot 0" in error["message"]
    assert flags(state()[0]) == "bootable confirmed active"


def test_another_key_is_not_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = small(1, Ed25519PrivateKey.generate())
    error = ask(capsys, "flash", M7, "--runner", saved(forged, tmp_path), code=5)["error"]
    assert "signature" in error["message"]
    assert flags(state()[1]) == ""
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(small(1).data[:-100])
    assert "damaged" in ask(capsys, "flash", M7, "--runner", damaged, code=5)["error"]["message"]
    wrong = saved(small(0), tmp_path)
    assert "another slot" in ask(capsys, "flash", M7, "--runner", wrong, code=7)["error"]["message"]


def test_what_nobody_confirms_goes_at_the_next_start() -> None:
    image, link = other(1, 4), line()
    list(upload_image(link.line, image.data, soon()))
    assert flags({slot.slot: slot for slot in try_image(link.line, image.hash, soon())}[1]) == "bootable pending"
    link.close()
    stop(M7, kill=True)
    start(Settings.from_profile(M7, machine=M7))
    assert flags(state()[1]) == "bootable active"
    stop(M7, kill=True)
    start(Settings.from_profile(M7, machine=M7))
    assert {number: flags(slot) for number, slot in state().items()} == {0: "bootable confirmed active", 1: "bootable"}


def test_what_nobody_confirms_within_ten_minutes_resets_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot reach the new firmware could not ask for a reset. Its clock skips the time in which it waits."""
    image, link = other(1, 6), line()
    list(upload_image(link.line, image.data, soon()))
    try_image(link.line, image.hash, soon())
    link.close()
    stop(M7, kill=True)
    monkeypatch.setattr("edgekit.virtual.qemu._counted", lambda _: ["-icount", "shift=0,sleep=off"])
    start(Settings.from_profile(M7, machine=M7))
    end = time.monotonic() + 120
    while (reason := why_it_started()) == "power-on":  # it runs, and is asked nothing else
        assert time.monotonic() < end
        time.sleep(1)
    assert "not confirmed in time" in reason
    assert {number: flags(slot) for number, slot in state().items()} == {0: "bootable confirmed active", 1: "bootable"}


def test_an_upload_goes_on_after_a_cut_line(tmp_path: Path) -> None:
    """By itself: the line breaks twice under it."""
    (one,) = virtual_boards()
    between, cuts = Proxy(one.port), 0

    def listen(event: Event) -> None:
        nonlocal cuts
        if isinstance(event, Moved) and event.done > (cuts + 1) * event.total / 3 and cuts < 2:
            cuts += 1
            between.cut()

    def opened() -> SerialLink:
        link = open_link(f"socket://127.0.0.1:{between.port}")
        assert isinstance(link, SerialLink)
        return link

    link, image = opened(), other(1, 5)
    plan = plan_firmware(link, soon(), saved(image, tmp_path))
    link.close()
    assert execute_firmware(opened, plan, listen=listen).slot == 1
    assert cuts == 2
    assert between.sent < 1.3 * len(image.data)
    between.close()
    assert (state()[1].hash, flags(state()[1])) == (image.hash, "bootable confirmed active")


def cut_of_power(image: Image) -> int:
    """In the midst of an upload; returns how many bytes the board had."""
    link = line()
    uploading = upload_image(link.line, image.data, soon())
    while (there := next(uploading)) < len(image.data) / 3:
        pass
    stop(M7, kill=True)
    link.close()
    start(Settings.from_profile(M7, machine=M7))
    assert flags(state()[0]) == "bootable confirmed active"
    return there


def test_an_upload_goes_on_after_a_cut_of_power(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = other(1, 5)
    had = cut_of_power(image)
    assert run(["flash", M7, "--runner", str(saved(image, tmp_path))]) == 0
    told = re.search(r"goes on at (\d+) of (\d+) KiB", capsys.readouterr().err)
    assert told
    assert int(told[1]) >= (had - 32) // 1024 > 64
    assert int(told[2]) == round(len(image.data) / 1024)
    assert (state()[1].hash, flags(state()[1])) == (image.hash, "bootable confirmed active")


def test_a_trial_that_somebody_left_is_ended_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = line()
    list(upload_image(link.line, other(1, 8).data, soon()))
    try_image(link.line, other(1, 8).hash, soon())
    link.close()
    with edgekit.connect(M7) as device:
        device.client.reset()
    assert flags(state()[1]) == "bootable active"
    assert run(["doctor", M7, "--json"]) != 0
    trouble = next(c for c in json.loads(capsys.readouterr().out)["checks"] if c["name"] == "image slots")
    assert "slot 1 is on trial" in trouble["cause"]
    image = other(1, 9)
    plan = ask(capsys, "flash", M7, "--runner", saved(image, tmp_path))["plan"]
    assert [step["step"] for step in plan["steps"]] == ["goback", "upload", "trial", "reset", "health", "confirm"]
    assert (state()[1].hash, flags(state()[1])) == (image.hash, "bootable confirmed active")


def test_another_tool_goes_on_after_a_cut_of_power() -> None:
    image = other(1, 5)
    had = cut_of_power(image)

    async def upload(port: str) -> list[int]:
        async with SMPClient(SMPSerialTransport(), port, timeout_s=60) as client:
            return [there async for there in client.upload(image.data)]

    (one,) = virtual_boards()
    with port_to("127.0.0.1", one.port) as port:
        offsets = asyncio.run(upload(port))
    assert had - 32 <= offsets[0] < offsets[-1] == len(image.data)
    assert (state()[1].hash, flags(state()[1])) == (image.hash, "bootable")


def test_another_tool_updates_it(tmp_path: Path) -> None:
    """smpclient reads the image as MCUboot's, uploads it, marks it for a trial, resets the board, and confirms."""
    image = other(1, 6)
    info = ImageInfo.load_file(str(saved(image, tmp_path)))
    assert info.get_tlv(IMAGE_TLV.SHA256).value == image.hash

    async def session(port: str, *, first: bool) -> None:
        async with SMPClient(SMPSerialTransport(), port, timeout_s=60) as client:
            if first:
                assert [there async for there in client.upload(image.data)][-1] == len(image.data)
                marked = await client.request(ImageStatesWrite(hash=image.hash))
                assert success(marked)
                assert [(s.slot, s.pending) for s in marked.images] == [(0, False), (1, True)]
                assert success(await client.request(ResetWrite()))
                return
            states = await client.request(ImageStatesRead())
            assert success(states)
            assert [(s.slot, s.active, s.confirmed, s.version) for s in states.images] == [
                (0, False, True, "0.1.0"),
                (1, True, False, "0.1.0.6"),
            ]
            confirmed = await client.request(ImageStatesWrite(confirm=True))
            assert success(confirmed)
            assert [(s.slot, s.confirmed) for s in confirmed.images] == [(0, False), (1, True)]

    (one,) = virtual_boards()
    with port_to("127.0.0.1", one.port) as port:
        asyncio.run(session(port, first=True))
    assert why_it_started() == "reset on request"
    with port_to("127.0.0.1", one.port) as port:
        asyncio.run(session(port, first=False))
    assert flags(state()[1]) == "bootable confirmed active"
