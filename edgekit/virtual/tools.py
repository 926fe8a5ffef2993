"""Programs of the host's system that virtual boards need, and the Debian packages that have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit.virtual.errors import VirtualBoardError

_DEBIAN = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-arm": "qemu-system-arm",
    "mkfs.ext4": "e2fsprogs",
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
}
_ADMIN = "/usr/local/sbin:/usr/sbin:/sbin"  # not in every user's PATH
_TAIL = 2000  #: characters of a program's output that an error shows


def tool(name: str) -> str:
    """The path of a program.

    Raises:
        VirtualBoardError: it is not installed; the hint names its Debian package.
    """
    found = shutil.which(name) or shutil.which(name, path=_ADMIN)
    if found is None:
        raise VirtualBoardError(
            f"virtual boards need the program {name}, which is not installed",
            f"on Debian: sudo apt install {_DEBIAN[name]}; elsewhere see docs/virtual-boards.md",
        )
    return found


def run(what: str, command: Sequence[str], folder: Path | None = None) -> str:
    """Run a program to its end; returns its output.

    Raises:
        VirtualBoardError: saying that ``what`` failed, with the last of its output.
    """
    done = attempt(command, folder)
    if done.returncode != 0:
        raise VirtualBoardError(
            f"{what} failed (exit code {done.returncode}): {words(done)}", f"the command was: {' '.join(command)}"
        )
    return done.stdout


def attempt(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program whose failure is not yet an error. Its messages are the ones in English."""
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")


def words(done: subprocess.CompletedProcess[str]) -> str:
    """The last of what a program said."""
    return (done.stderr.strip() or done.stdout.strip())[-_TAIL:] or "it said nothing"
