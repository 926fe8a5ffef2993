"""A serial port of this machine that leads to a TCP connection, for programs that only know ports."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Iterator


@contextlib.contextmanager
def port_to(host: str, port: int) -> Iterator[str]:
    """The name of a port whose bytes go to ``host`` and back."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ends, stop = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select.select([master, connection, ends], [], [])
            if ends in ready:
                return
            if master in ready:
                connection.sendall(os.read(master, 4096))
            if connection in ready:
                os.write(master, connection.recv(4096))

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.write(stop, b".")
        thread.join()
        connection.close()
        for descriptor in (master, slave, ends, stop):
            os.close(descriptor)
