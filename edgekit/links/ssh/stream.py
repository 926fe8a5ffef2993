"""A channel's bytes with deadlines: who waits for the board gives up in time, whatever the network does."""

from __future__ import annotations

import contextlib
import time

import paramiko

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh.errors import ConnectionLost
from edgekit.links.ssh.sockets import Socket

STALL = 30.0  #: seconds without a byte in either direction, while one is waited for, after which the connection counts as lost
CHUNK = 1 << 22  #: bytes taken at once


class Stream:
    """The standard input and output of what runs at the channel's other end.

    Attributes:
        stall: seconds of silence that count as a lost connection; None: silence is no fault, as of a runner that computes.
    """

    def __init__(self, name: str, channel: paramiko.Channel, socket: Socket, stall: float | None = None) -> None:
        self.name = name
        self.channel = channel
        self._socket = socket
        self.stall = stall

    @property
    def packet(self) -> int:
        """Bytes that one SSH packet carries."""
        return max(1024, self.channel.out_max_packet_size - 64)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Hand over all of it."""
        view = memoryview(data)
        while view:
            self._limit(deadline)
            piece = view[: self.packet]
            try:
                sent = self.channel.send(data if len(piece) == len(data) else bytes(piece))
            except TimeoutError:
                raise self._silent(deadline) from None
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise self.lost(error) from error
            if sent == 0:
                raise self.lost()
            view = view[sent:]

    def receive(self, deadline: Deadline) -> bytes:
        """What has come, at least one byte.

        Raises:
            ConnectionLost: the other end is closed.
        """
        data = self.read(deadline)
        if not data:
            raise self.lost()
        return data

    def read(self, deadline: Deadline) -> bytes:
        """What has come; empty at the end."""
        self._limit(deadline)
        try:
            return self.channel.recv(CHUNK)
        except TimeoutError:
            raise self._silent(deadline) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.lost(error) from error

    def close(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.close()

    def _limit(self, deadline: Deadline) -> None:
        seconds = deadline.remaining() if self.stall is None else min(deadline.remaining(), self.stall)
        self._socket.end = time.monotonic() + seconds
        self.channel.settimeout(max(seconds, 0.001))

    def _silent(self, deadline: Deadline) -> LinkError:
        if deadline.remaining() > 0:
            return ConnectionLost(f"{self.name}: nothing has moved on the connection for {self.stall:g} s", _AGAIN)
        return deadline.expired(self.name)

    def lost(self, error: BaseException | None = None) -> LinkError:
        """The error of a connection that broke."""
        return lost(self.name, error)


def lost(name: str, error: BaseException | None = None) -> ConnectionLost:
    """The error of a connection that broke."""
    why = str(error or "")
    return ConnectionLost(f"{name}: the connection is lost" + (f": {why}" if why else ""), _AGAIN)


_AGAIN = "try again: what was sent stays there and is not sent twice"
