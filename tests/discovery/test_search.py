"""The search for boards: a service that is really announced, ports as pyserial describes them."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from serial.tools.list_ports_common import ListPortInfo
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from edgekit.devices import KnownDevice, add
from edgekit.discovery import mdns, search, usb


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def announced() -> Iterator[str]:
    """The name of an SSH server that is announced at 127.0.0.1, port 2222."""
    name = f"kitchen-{secrets.token_hex(4)}"
    try:
        network = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    except OSError as error:
        pytest.skip(f"no multicast on loopback: {error}")
    info = ServiceInfo(
        mdns.TYPE, f"{name}.{mdns.TYPE}", port=2222, addresses=[socket.inet_aton("127.0.0.1")], server=f"{name}.local."
    )
    network.register_service(info)
    yield name
    network.unregister_service(info)
    network.close()


def test_a_server_that_announces_itself_is_found(announced: str) -> None:
    mine = [found for found in search(2.0).found if found.name == announced]
    assert [found.address for found in mine] == ["ssh://127.0.0.1:2222"]
    assert (mine[0].source, mine[0].link, mine[0].facts["host"]) == ("network", "ssh", f"{announced}.local")


def test_usb_ports_are_addressed_by_their_numbers(tmp_path: Path) -> None:
    port = ListPortInfo(str(tmp_path / "ttyACM0"))
    Path(port.device).touch()
    port.vid, port.pid, port.serial_number, port.product = 0x2E8A, 0x000A, "E660", "Pico"
    result = usb.describe([port, ListPortInfo(str(tmp_path / "ttyS0"))])
    (found,) = result.found
    assert (found.facts["id"], found.facts["serial number"], found.link) == ("2e8a:000a", "E660", "serial")
    assert found.address == "serial://2e8a:000a/E660"
    assert result.notes == ()


def test_a_port_that_cannot_be_opened_is_a_note(tmp_path: Path) -> None:
    port = ListPortInfo(str(tmp_path / "not-there"))
    port.vid, port.pid = 1, 2
    assert "dialout" in usb.describe([port]).notes[0]


def test_named_devices_come_first_and_a_damaged_virtual_board_is_a_note(config: Path) -> None:
    add(KnownDevice(name="desk", address="ssh://pi@192.0.2.1"))
    (config / "virtual" / "broken").mkdir(parents=True)
    (config / "virtual" / "broken" / "board.json").write_text("{")
    result = search(0.1)
    assert (result.found[0].name, result.found[0].source) == ("desk", "named")
    assert any("damaged" in note for note in result.notes)
