"""A board over SSH as the tests of trouble have it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator

from edgekit.firmware.build import build

import edgekit
from edgekit.links import native_target
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
