"""A board as a user has it: a real sshd on loopback, reached through a proxy that makes trouble, with a flashed runner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.board import Remote
from tests.support.boards import flash
from tests.support.proxy import Proxy
from tests.support.sshd import Sshd


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
