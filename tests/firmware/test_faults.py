"""Faults on the virtual Cortex-M7, made through QEMU's debugger: the board starts again and tells why."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.errors import LinkError
from edgekit.links import open_link
from edgekit.mcuboot import make_bootloader
from edgekit.protocol import Client
from edgekit.virtual.flash import FLASH, TARGET, make_flash
from edgekit.virtual.qemu import microcontroller
from tests.virtual.conftest import need

pytestmark = pytest.mark.slow

PC = 15
PUSH_FOREVER = bytes.fromhex("ffb4fde7")  #: `1: push {r0-r7}; b 1b`
LOOP = bytes.fromhex("fee7")  #: `b .`
RAM_END = 0x20400000
WATCHDOG_SECONDS = 20


class Debugger:
    """As much of gdb's remote protocol as it takes to set a register or memory of a halted processor."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._rest = b""
        self._send("qXfer:features:read:target.xml:0,ffb")  # QEMU lets nobody set registers who did not ask for their names

    def set_register(self, number: int, value: int) -> None:
        self._do(f"P{number:x}={value.to_bytes(4, 'little').hex()}")

    def write(self, address: int, data: bytes) -> None:
        self._do(f"M{address:x},{len(data):x}:{data.hex()}")

    def go(self) -> None:
        """Let it run, and leave."""
        self._do("D")
        self._socket.close()

    def _do(self, text: str) -> None:
        self._send(text)
        while (answer := self._packet()) != "OK":  # what was said before, and that the processor stopped
            assert not answer.startswith("E"), answer

    def _send(self, text: str) -> None:
        self._socket.sendall(f"${text}#{sum(text.encode()) % 256:02x}".encode())

    def _packet(self) -> str:
        while b"#" not in self._rest[:-2]:
            self._rest += self._socket.recv(4096)
        head, _, rest = self._rest.partition(b"#")
        self._rest = rest[2:]
        self._socket.sendall(b"+")
        return head.partition(b"$")[2].decode()


@dataclass
class Machine:
    line: int
    debugger: int

    def reason(self) -> str:
        """Why the board started last, once it answers."""
        end = time.monotonic() + 60
        while True:
            try:
                link = open_link(f"socket://127.0.0.1:{self.line}")
                try:
                    return str(Client(link).info().reset)
                finally:
                    link.close()
            except LinkError:
                assert time.monotonic() < end
                time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    need("qemu-system-arm")
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path_factory.getbasetemp() / "firmware-config"))  # one key, one build, for all
    made = Machine(free_port(), free_port())
    line = f"tcp:127.0.0.1:{made.line},server=on,wait=off,nodelay=on"
    words = ["qemu-system-arm", "-display", "none", "-monitor", "none", "-serial", line]
    make_flash(tmp_path)
    board = microcontroller(make_bootloader(TARGET), tmp_path / FLASH)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*words, *board, "-gdb", f"tcp:127.0.0.1:{made.debugger}"], stderr=log)
    try:
        assert made.reason() == "power-on"
        yield made
    finally:
        process.kill()
        process.wait()


def test_a_jump_to_nowhere(machine: Machine) -> None:
    debugger = Debugger(machine.debugger)
    debugger.set_register(PC, 0x60000000 - 0x1000)
    debugger.go()
    assert "fault" in machine.reason()
    assert machine.reason() == machine.reason()  # as long as it runs


def test_an_undefined_instruction_names_its_place(machine: Machine) -> None:
    debugger = Debugger(machine.debugger)
    debugger.write(RAM_END - 64, b"\xff\xde" * 8)  # udf #255
    debugger.set_register(PC, RAM_END - 64)
    debugger.go()
    assert machine.reason().startswith(f"undefined instruction (pc 0x{RAM_END - 64:08x}")


def test_a_stack_that_grows_too_far(machine: Machine) -> None:
    debugger = Debugger(machine.debugger)
    debugger.write(RAM_END - 64, PUSH_FOREVER)
    debugger.set_register(PC, RAM_END - 64)
    debugger.go()
    assert machine.reason().startswith(("stack overflow", "bus fault at 0x1fffff"))


def test_the_watchdog_ends_a_loop(machine: Machine) -> None:
    debugger = Debugger(machine.debugger)
    debugger.write(RAM_END - 64, LOOP)
    debugger.set_register(PC, RAM_END - 64)
    debugger.go()
    time.sleep(WATCHDOG_SECONDS)
    assert machine.reason().startswith(f"watchdog (pc 0x{RAM_END - 64:08x}")
