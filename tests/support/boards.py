"""For tests: boards that are a real sshd on loopback with a home of their own, and a user with a key for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edgekit.firmware.build import build, cache_folder

from edgekit.links import Deadline, native_target
from edgekit.links.ssh import Connection
from edgekit.sessions.flash import execute
from edgekit.sessions.flash_plan import plan_flash
from tests.host.home import Home
from tests.support.proxy import Proxy
from tests.support.sshd import MISSING, SSHD, Sshd, make_key


@pytest.fixture
def me(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home: a key in .ssh, no configuration, no agent."""
    if SSHD is None:
        pytest.skip(MISSING)
    home = tmp_path / "me"
    make_key(home / ".ssh" / "id_ed25519")
    (tmp_path / "authorized").write_text((home / ".ssh" / "id_ed25519.pub").read_text())
    monkeypatch.setenv("EDGEKIT_CACHE", str(cache_folder().parent))  # what is built stays where it is
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def authorized(me: Path, tmp_path: Path) -> Path:
    """The board's authorized_keys."""
    del me
    return tmp_path / "authorized"


Start = Callable[..., Sshd]


@pytest.fixture
def start(tmp_path: Path, authorized: Path) -> Iterator[Start]:
    """Starts servers: name, lines of configuration, where the board's home is, and where it listens (tests.support.sshd.Sshd)."""
    servers: list[Sshd] = []

    def call(name: str = "board", *options: str, home: Path | None = None, **place: Any) -> Sshd:
        servers.append(Sshd(tmp_path / name, home or tmp_path / name / "home", authorized, *options, **place))
        return servers[-1]

    yield call
    for server in servers:
        server.stop()
        Home(server.home, ()).close()


@pytest.fixture
def stranger(start: Start) -> Sshd:
    """A board whose host key nobody knows yet."""
    return start()


@pytest.fixture
def board(stranger: Sshd, me: Path) -> Sshd:
    """A board that the user has enrolled with ssh."""
    know(me, stranger)
    return stranger


@pytest.fixture
def address(board: Sshd) -> str:
    return f"ssh://root@127.0.0.1:{board.port}" if Path.home().owner() == "root" else f"ssh://127.0.0.1:{board.port}"


@pytest.fixture
def proxy(board: Sshd, me: Path) -> Iterator[Proxy]:
    """A proxy before the board, under which it is enrolled too."""
    between = Proxy(board.port)
    with (me / ".ssh" / "known_hosts").open("a") as file:
        file.write(f"[127.0.0.1]:{between.port} {board.public_key}\n")
    yield between
    between.close()


@pytest.fixture
def through(proxy: Proxy) -> str:
    """The board's address by way of the proxy."""
    return f"ssh://127.0.0.1:{proxy.port}"


@pytest.fixture
def flashed(board: Sshd) -> Sshd:
    """A board with this version's runner."""
    install(board.home, build("runner", native_target()).read_bytes())
    return board


def know(me: Path, server: Sshd) -> None:
    """Enrol a server, as ssh does."""
    with (me / ".ssh" / "known_hosts").open("a") as file:
        file.write(f"{server.known_name} {server.public_key}\n")


def install(home: Path, content: str | bytes) -> Path:
    """Put a program where the runner lies on a board."""
    data = content.encode() if isinstance(content, str) else content
    digest = hashlib.sha256(data).hexdigest()
    release = home / "releases" / digest
    release.mkdir(parents=True)
    (release / "edgekit-runner").write_bytes(data)
    (release / "edgekit-runner").chmod(0o700)
    (home / "current").symlink_to(f"releases/{digest}")
    return release


def flash(address: str) -> None:
    """Bring this version's runner, as `edgekit flash` does."""
    with Connection(address) as connection:
        execute(connection, plan_flash(connection, Deadline.after(60)))
