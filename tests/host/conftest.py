from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgekit.firmware.build import build

from tests.host.home import Home


@pytest.fixture(scope="session")
def command() -> tuple[str, ...]:
    return (os.environ.get("EDGEKIT_RUNNER") or str(build("runner", "x86_64-linux")),)


@pytest.fixture
def home(tmp_path: Path, command: tuple[str, ...]) -> Iterator[Home]:
    home = Home(tmp_path / "home", command)
    yield home
    home.close()


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[Home]:
    """A home whose runner is the aarch64 one, emulated."""
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
    home = Home(tmp_path / "home", (emulator, str(build("runner", "aarch64-linux"))))
    yield home
    home.close()
