"""The port that carries the bytes: a serial device, or a TCP connection. It owns the descriptor and translates its errors."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from typing import Protocol

import serial

from edgekit.errors import LinkError, LinkLost
from edgekit.links.deadline import Deadline
from edgekit.links.serial.address import Address, find_device

_CHUNK = 65536
_CONNECT_SECONDS = 10.0


class Port(Protocol):
    """Bytes to and from a line. Every call raises LinkLost where the port is gone."""

    name: str

    def write(self, data: bytes, deadline: Deadline) -> None:
        """All of ``data``."""

    def read(self, seconds: float) -> bytes:
        """What has come; empty when nothing does within ``seconds``."""

    def set_baud(self, baud: int) -> bool:
        """Change the line's rate; False where it has none."""

    def close(self) -> None:
        """Again and again is fine."""


def open_port(address: Address) -> Port:
    """Open the port of an address.

    Raises:
        LinkError: there is none, it is in use, or may not be opened.
        LinkLost: nobody listens at the TCP port.
    """
    return SocketPort(address) if address.host else DevicePort(address)


class SocketPort:
    """A line behind TCP."""

    def __init__(self, address: Address) -> None:
        self.name = address.text
        try:
            self._socket = socket.create_connection((address.host, address.port), _CONNECT_SECONDS)
        except OSError as error:
            raise LinkLost(
                f"{self.name}: nobody listens there: {error.strerror or error}",
                "`edgekit virtual list` shows virtual boards",
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes, deadline: Deadline) -> None:
        try:
            self._socket.settimeout(max(0.001, deadline.remaining()))
            self._socket.sendall(data)
        except TimeoutError:
            raise deadline.expired(f"{self.name}: the line") from None
        except OSError as error:
            raise LinkLost(f"{self.name}: the connection broke: {error.strerror or error}") from error

    def read(self, seconds: float) -> bytes:
        try:
            if not select.select([self._socket], [], [], max(0.0, seconds))[0]:
                return b""
            data = self._socket.recv(_CHUNK)
        except (OSError, ValueError) as error:
            raise LinkLost(f"{self.name}: the connection broke: {error}") from error
        if not data:
            raise LinkLost(f"{self.name}: the other side closed the connection")
        return data

    def set_baud(self, baud: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


class DevicePort:
    """A serial device."""

    def __init__(self, address: Address) -> None:
        self.name = address.text
        device = find_device(address)
        try:
            self._serial = serial.Serial(device, address.baud, timeout=0, write_timeout=_CONNECT_SECONDS, exclusive=True)
        except (serial.SerialException, OSError) as error:
            raise _cannot_open(self.name, device, error) from error

    def write(self, data: bytes, deadline: Deadline) -> None:
        try:
            self._serial.write_timeout = max(0.001, deadline.remaining())
            self._serial.write(data)
        except serial.SerialTimeoutException:
            raise deadline.expired(f"{self.name}: the line") from None
        except (serial.SerialException, OSError) as error:
            raise LinkLost(f"{self.name}: the port is gone: {error}", "was the board unplugged?") from error

    def read(self, seconds: float) -> bytes:
        try:
            if not select.select([self._serial.fileno()], [], [], max(0.0, seconds))[0]:
                return b""
            data: bytes = self._serial.read(_CHUNK)
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkLost(f"{self.name}: the port is gone: {error}", "was the board unplugged?") from error
        return data

    def set_baud(self, baud: int) -> bool:
        try:
            self._serial.flush()
            self._serial.baudrate = baud
        except (serial.SerialException, OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        with contextlib.suppress(serial.SerialException, OSError):
            self._serial.close()


def _cannot_open(name: str, device: str, error: Exception) -> LinkError:
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        user = os.environ.get("USER", "$USER")
        return LinkError(f"{name}: you may not open {device}", f"`sudo usermod -aG dialout {user}`, then log in again")
    if number in (errno.EBUSY, errno.EAGAIN) or "lock" in str(error):
        return LinkError(f"{name}: another program uses {device}", f"`fuser -v {device}` shows it; an `edgekit monitor`?")
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return LinkLost(f"{name}: there is no port {device}", "`edgekit devices` lists those that are there")
    return LinkError(f"{name}: {device} cannot be opened: {error}", "is it a serial port?")
