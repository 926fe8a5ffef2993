"""Addresses of serial lines, and the one USB port that an address means.

serial:///dev/ttyACM0?baud=921600    the port itself
serial://0483:374b/0668FF56?baud=…   the USB port of that VID:PID and serial number; the number may be left out
                                     where only one such port is there
socket://127.0.0.1:4000              a line behind TCP: a virtual board, a terminal server
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from serial.tools import list_ports

from edgekit.errors import InputError, LinkError

BAUD = 115200  #: what a board's firmware begins with
_FORM = "serial:///dev/ttyACM0, serial://VID:PID/SERIAL-NUMBER or socket://HOST:PORT, the first two with ?baud=N"
_USB = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class Address:
    """``device`` is a port's file, ``usb`` (VID, PID, serial number or "") finds one, ``host`` and ``port`` are TCP's."""

    text: str
    device: str = ""
    usb: tuple[int, int, str] | None = None
    host: str = ""
    port: int = 0
    baud: int = BAUD


def parse(address: str) -> Address:
    """Read an address.

    Raises:
        InputError: it has another form.
    """
    try:
        parts = urlsplit(address)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = parts.port if parts.scheme == "socket" else None
    except ValueError as error:
        raise InputError(f"{address!r} is no address of a serial line: {error}", _FORM) from error
    baud = options.pop("baud", str(BAUD))
    if "://" not in address or options or parts.fragment or not baud.isdigit() or not 300 <= int(baud) <= 20_000_000:
        raise InputError(f"{address!r} is no address of a serial line", _FORM)
    if parts.scheme == "socket" and parts.hostname and port and parts.path in ("", "/"):
        return Address(address, host=parts.hostname, port=port)
    if parts.scheme == "serial" and not parts.netloc and len(parts.path) > 1:
        return Address(address, device=unquote(parts.path), baud=int(baud))
    found = _USB.fullmatch(parts.netloc)
    if parts.scheme == "serial" and found:
        number = unquote(parts.path.removeprefix("/"))
        return Address(address, usb=(int(found[1], 16), int(found[2], 16), number), baud=int(baud))
    raise InputError(f"{address!r} is no address of a serial line", _FORM)


def find_device(address: Address) -> str:
    """The file of the port that an address means; never another one that just happens to be there.

    Raises:
        LinkError: no such port is there, or several are.
    """
    if address.usb is None:
        return address.device
    vid, pid, number = address.usb
    ports = [port for port in list_ports.comports() if port.vid is not None]
    fitting = [p for p in ports if (p.vid, p.pid) == (vid, pid) and number in ("", p.serial_number)]
    if len(fitting) == 1:
        return str(fitting[0].device)
    wanted = f"{vid:04x}:{pid:04x}" + (f" with the serial number {number}" if number else "")
    if not fitting:
        there = ", ".join(f"{p.vid:04x}:{p.pid:04x}/{p.serial_number or ''} ({p.device})" for p in ports) or "none"
        raise LinkError(f"{address.text}: no USB serial port {wanted} is there", f"plugged in and powered? There are: {there}")
    numbers = ", ".join(f"serial://{vid:04x}:{pid:04x}/{p.serial_number or ''} ({p.device})" for p in fitting)
    raise LinkError(f"{address.text}: {len(fitting)} USB serial ports are {wanted}", f"name one: {numbers}")
