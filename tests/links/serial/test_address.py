"""Which port an address means: the one that was asked for, or none."""

from __future__ import annotations

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from edgekit.errors import InputError, LinkError
from edgekit.links.serial.address import find_device, parse
from edgekit.links.serial.port import open_port


def port(device: str, vid: int | None = None, pid: int | None = None, number: str | None = None) -> ListPortInfo:
    info = ListPortInfo(device)
    info.vid, info.pid, info.serial_number = vid, pid, number
    return info


PORTS = [
    port("/dev/ttyS0"),
    port("/dev/ttyACM0", 0x0483, 0x374B, "0668FF56"),
    port("/dev/ttyACM1", 0x0483, 0x374B, "0669AA00"),
    port("/dev/ttyUSB0", 0x10C4, 0xEA60, "0001"),
]


@pytest.fixture(autouse=True)
def ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_ports, "comports", lambda: PORTS)


@pytest.mark.parametrize(
    ("address", "device", "baud"),
    [
        ("serial:///dev/ttyACM7", "/dev/ttyACM7", 115200),
        ("serial:///dev/serial/by-id/a%20b?baud=921600", "/dev/serial/by-id/a b", 921600),
        ("serial://0483:374b/0669AA00", "/dev/ttyACM1", 115200),
        ("serial://10c4:EA60?baud=460800", "/dev/ttyUSB0", 460800),
        ("serial://10c4:ea60/0001", "/dev/ttyUSB0", 115200),
    ],
)
def test_an_address_means_one_port(address: str, device: str, baud: int) -> None:
    found = parse(address)
    assert (find_device(found), found.baud) == (device, baud)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("serial://0483:374b/0668FF5", "0668FF56"),
        ("serial://0483:374b", "2 USB serial ports"),
        ("serial://0483:ffff", "no USB serial port 0483:ffff"),
    ],
)
def test_another_port_is_never_taken_in_its_place(address: str, told: str) -> None:
    with pytest.raises(LinkError) as error:
        find_device(parse(address))
    assert told in str(error.value)
    assert "serial number" in str(error.value) or "/dev/ttyACM" in str(error.value)


def test_a_line_behind_tcp() -> None:
    found = parse("socket://[::1]:4000")
    assert (found.host, found.port, found.device) == ("::1", 4000, "")


@pytest.mark.parametrize(
    "address",
    [
        "serial:/dev/ttyACM0",
        "serial://",
        "serial:///",
        "serial://board",
        "serial://0483",
        "serial:///dev/ttyACM0?baud=fast",
        "serial:///dev/ttyACM0?baud=1",
        "serial:///dev/ttyACM0?rate=9600",
        "socket://127.0.0.1",
        "socket://127.0.0.1:4000/x",
        "socket://127.0.0.1:99999",
    ],
)
def test_other_forms_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="no address of a serial line"):
        parse(address)


def test_a_port_that_is_not_there_says_so() -> None:
    with pytest.raises(LinkError, match="there is no port /dev/no-such-port"):
        open_port(parse("serial:///dev/no-such-port"))
    with pytest.raises(LinkError, match="nobody listens there"):
        open_port(parse("socket://127.0.0.1:1"))
