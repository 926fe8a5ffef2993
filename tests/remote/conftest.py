"""A board as a user has it: a real sshd on loopback, reached through a proxy that makes trouble, with a flashed runner."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgekit.firmware.build import build

import edgekit
from edgekit.links import native_target
from tests.host.home import Home
from tests.support.boards import flash
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


@pytest.fixture
def bare(
    board: Sshd,
    proxy: Proxy,
    through: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Remote]:
    """A board that was not flashed yet; the test's folder is its own."""
    monkeypatch.chdir(tmp_path)
    made = Remote(board, proxy, through)
    yield made
    made.home.close()


@pytest.fixture
def remote(bare: Remote) -> Remote:
    """A flashed board."""
    flash(bare.address)
    return bare
