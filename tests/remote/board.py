"""A board over SSH as the tests of trouble have it."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from edgekit.firmware.build import build

import edgekit
from edgekit.links import native_target
from edgekit.telemetry import read_run
from tests.host.home import Home
from tests.remote.training import check, train
from tests.support.proxy import Proxy
from tests.support.sshd import Sshd


class Remote:
    """The board's address, its home folder with its session host, and the proxy before it."""

    def __init__(self, server: Sshd, between: Proxy, address: str) -> None:
        self.address = address
        self.proxy = between
        self.home = Home(server.home, (str(build("runner", native_target())),))

    def connect(self) -> edgekit.Device:
        return edgekit.connect(self.address, threads=1)

    def forget_uploads(self) -> None:
        """Empty the store, so that everything is sent once more."""
        shutil.rmtree(self.home.path / "store", ignore_errors=True)


class Peak:
    """The most that lay in the spools of a home while it was looked at."""

    def __init__(self, home: Path) -> None:
        self.bytes = self.looks = 0
        self._home = home
        self._over = threading.Event()

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            sizes, paths = 0, list[Path]()
            with contextlib.suppress(OSError):  # a spool goes while it is looked at
                paths += self._home.glob("sessions/*/spool/*")
            for path in paths:
                with contextlib.suppress(OSError):
                    sizes += path.stat().st_size
            self.bytes = max(self.bytes, sizes)
            self.looks += sizes > 0
            time.sleep(0.0005)


def bound(session: edgekit.Session) -> int:
    """Bytes that the run was granted."""
    return int(read_run(session.folder).facts["options"]["stream"]["bytes"])


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def recover(remote: Remote) -> None:
    """Another connection trains as if nothing had been."""
    with remote.connect() as device:
        session = train(device)
        session.result()
        check(session)
