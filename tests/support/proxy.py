"""For tests: a TCP proxy that makes trouble between a client and a server on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Forwards connections to ``port``; its attributes can be changed while it runs.

    Attributes:
        delay: seconds that each piece waits.
        cut_after: bytes towards the server, over all connections, after which both sides are reset; None: never.
        silent_after: the same, and then nothing is forwarded either way while the connections stay open: half-open.
        trickle: seconds between single bytes towards the client: slow-loris.
        rate: bytes a second towards the server, over all connections; None: as fast as they come.
        mute: what goes towards the client is dropped.
        deaf: connections are taken and never forwarded.
        sent: bytes forwarded towards the server.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.delay = 0.0
        self.cut_after: int | None = None
        self.silent_after: int | None = None
        self.trickle = 0.0
        self.mute = False
        self.deaf = False
        self.rate: float | None = None
        self.sent = 0
        self._free = 0.0  #: when the paced link has carried what it was given
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """Forward new connections as if nothing had been; the broken ones stay broken."""
        self.cut_after = self.silent_after = None
        self.deaf = self.mute = False
        self.trickle = self.delay = 0.0

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            sockets, self._open = self._open, []
        for each in sockets:
            _reset(each)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    self._open.append(client)
                if not self.deaf:
                    self._join(client)

    def _join(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._to))
        with self._lock:
            self._open.append(server)
        for source, sink, up in ((client, server, True), (server, client, False)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        silenced = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                if silenced or self._is_silent():
                    silenced = True
                    continue  # for good, on this connection
                if self.mute and not up:
                    continue
                if up and not self._count(len(data)):
                    self.cut()
                    return
                if up and self.rate:
                    self._pace(len(data))
                if self.trickle and not up:
                    for byte in data:
                        sink.sendall(bytes([byte]))
                        time.sleep(self.trickle)
                else:
                    sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _pace(self, size: int) -> None:
        """Wait as long as a link of this rate carries the bytes; little is sent at once, so that it flows."""
        assert self.rate is not None
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self.rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))

    def _count(self, size: int) -> bool:
        self.sent += size
        return self.cut_after is None or self.sent <= self.cut_after

    def _is_silent(self) -> bool:
        return self.silent_after is not None and self.sent >= self.silent_after


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
