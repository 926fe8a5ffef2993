"""``edgekit monitor``: the log of a board whose line breaks, and comes back."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.cli.main import run
from tests.firmware.tools import SANITIZED, executable


@contextmanager
def board(connection: socket.socket) -> Iterator[None]:
    """A board at the other end of a TCP connection, which breaks when it is switched off."""
    with (
        connection,
        subprocess.Popen((executable("serial_board"),), stdin=connection, stdout=connection, env=SANITIZED) as process,
    ):
        yield
        connection.shutdown(socket.SHUT_RDWR)
        assert process.wait(20) == 0


def test_it_shows_the_log_again_after_the_line_was_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"socket://127.0.0.1:{server.getsockname()[1]}"
        code = "import sys; from edgekit.cli.main import run; sys.exit(run(sys.argv[1:]))"
        words = (sys.executable, "-u", "-c", code, "monitor", address)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as monitor:
            assert monitor.stdout is not None
            assert monitor.stderr is not None
            for _ in range(2):
                connection, _ = server.accept()
                with board(connection):
                    assert monitor.stdout.readline() == "serial_board\n"
            monitor.terminate()
            said = monitor.stderr.read()
    assert "the other side closed the connection; waiting for it to come back" in said.replace("\n", " ")
    assert "the line is back" in said


def test_a_board_over_ssh_has_its_log_elsewhere() -> None:
    assert run(["monitor", "ssh://pi@192.0.2.1"]) == 2
    assert run(["monitor", "--once", "socket://127.0.0.1:1"]) == 6
