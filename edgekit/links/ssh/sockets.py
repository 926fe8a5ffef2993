"""The TCP connection below SSH: it notices a peer that is gone, and gives up in time."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Protocol

_IDLE, _INTERVAL, _PROBES = 20, 5, 4  #: TCP keep-alive: seconds of silence, seconds between probes, probes that may be lost
_UNACKNOWLEDGED_MS = 30_000  #: sent bytes that nobody acknowledges for so long end the connection
_BUFFER = 1 << 18


class Raw(Protocol):
    """What carries the bytes: a TCP socket, or a channel of a jump host."""

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


class Socket:
    """What paramiko writes to and reads from.

    paramiko retries a write to a full TCP buffer for ever; here it ends at ``end`` on the monotonic clock. It reads a packet in
    two small pieces; here they come out of one large read.

    Attributes:
        ended: the peer hung up, or the connection broke. paramiko's own word for that comes a moment after the channels' end.
    """

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._buffer = memoryview(b"")
        self.end = float("inf")
        self.ended = False
        self._closed = False  #: paramiko looks at it

    def send(self, data: bytes) -> int:
        try:
            return self._raw.send(data)
        except TimeoutError:
            if time.monotonic() >= self.end:
                self.close()
                raise ConnectionAbortedError("the board takes no more data") from None
            raise
        except OSError:
            self.ended = True
            raise

    def recv(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = self._more(max(size, _BUFFER))
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(part)

    def _more(self, size: int) -> memoryview:
        try:
            data = self._raw.recv(size)
        except TimeoutError:
            raise
        except OSError:
            self.ended = True
            raise
        self.ended |= not data
        return memoryview(data)

    def settimeout(self, seconds: float | None) -> None:
        self._raw.settimeout(seconds)

    def close(self) -> None:
        self._closed = self.ended = True
        with contextlib.suppress(OSError, EOFError):
            self._raw.close()


def tune(connection: socket.socket) -> None:
    """Send small messages at once, and notice a peer that is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _IDLE),
        ("TCP_KEEPALIVE", _IDLE),  # macOS' name for it
        ("TCP_KEEPINTVL", _INTERVAL),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
