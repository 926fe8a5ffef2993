"""USB serial ports, as microcontroller boards have them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import quote

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from edgekit.discovery.found import Found, Search


def search() -> Search:
    """The ports of this machine that are USB devices."""
    try:
        ports = list(list_ports.comports())
    except OSError as error:
        return Search((), (f"USB: the serial ports cannot be listed: {error.strerror}",))
    return describe(ports)


def describe(ports: Iterable[ListPortInfo]) -> Search:
    """Those of ``ports`` that are USB devices; a note for each that this user may not open."""
    wanted = sorted((port for port in ports if port.vid is not None), key=lambda port: str(port.device))
    notes = [
        f"USB: you may not open {port.device}: `sudo usermod -aG dialout $USER`, then log in again"
        for port in wanted
        if not os.access(port.device, os.R_OK | os.W_OK)
    ]
    return Search(tuple(_found(port) for port in wanted), tuple(notes))


def _found(port: ListPortInfo) -> Found:
    product = " ".join(filter(None, (port.manufacturer, port.product)))
    facts = {"id": f"{port.vid:04x}:{port.pid:04x}", "serial number": port.serial_number, "product": product or None}
    number = f"/{quote(port.serial_number, safe='')}" if port.serial_number else ""
    return Found("usb", port.name or port.device, f"serial://{facts['id']}{number}", "serial", facts)
