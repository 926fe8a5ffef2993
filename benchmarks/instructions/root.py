"""What PyTorch runs in on an emulated Arm board: a folder with Debian's Python for arm64 and the wheels, as a root file system.

It lies in a folder that is to be the board's /home. Made once, kept in edgekit's cache under the digest of what it is made from.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from edgekit.files import cache_root, locked
from edgekit.virtual.cpio import Entry
from edgekit.virtual.debs import files_of
from edgekit.virtual.image import WANTED as BOARD
from edgekit.virtual.packages import Package, Wanted, fetch, read_package
from edgekit.virtual.progress import Progress

NAME = "debian"  #: of the root file system in the board's /home
PYTHON = "3.11"  #: of Debian 12
#: with the kernel that the boards boot anyway; the libraries follow
DEBIAN = Wanted(BOARD.kernel, (f"python{PYTHON}", f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6"))
TORCH = "2.8.0"
#: torch with what it imports: pip would choose dependencies for this machine's architecture
WHEELS = (
    f"torch=={TORCH}",
    "numpy==2.2.6",
    "filelock==3.18.0",
    "fsspec==2025.7.0",
    "jinja2==3.1.6",
    "markupsafe==3.0.2",
    "mpmath==1.3.0",
    "networkx==3.5",
    "sympy==1.14.0",
    "typing-extensions==4.14.1",
)
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64")
_PACKAGES = "usr/lib/python3/dist-packages"  #: where Debian's Python looks for modules
_FOLDERS = ("dev", "proc", "sys", "tmp", "usr/bin", "usr/lib", "usr/sbin", _PACKAGES)


class Unavailable(Exception):
    """PyTorch's build for Arm cannot be had; says why, in one line."""


def make_home(progress: Progress) -> Path:
    """The folder around the root file system, from the cache or new.

    Raises:
        Unavailable: pip cannot get the wheels.
        VirtualBoardError: apt cannot get the packages.
    """
    packages = fetch(DEBIAN, cache_root() / "virtual", False, progress)
    wanted = repr(([(p.name, p.sha256) for p in packages], WHEELS, Path(__file__).read_text()))
    cache = cache_root() / "instructions"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    with locked(cache / "lock"):
        if not home.exists():
            unfinished = cache / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _make(unfinished / NAME, packages)
            unfinished.rename(home)
    return home


def _make(root: Path, packages: dict[Package, Path]) -> None:
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for package, path in packages.items():
        if not package.name.startswith("linux-image-"):
            _unpack(root, files_of(read_package(package, path), package.name, lambda name: name.startswith("usr/")))
    _install(root / _PACKAGES)


def _unpack(root: Path, entries: Iterable[Entry]) -> None:
    for entry in entries:
        path = root / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.data.decode())
        else:
            path.write_bytes(entry.data)
            path.chmod(stat.S_IMODE(entry.mode))


def _install(folder: Path) -> None:
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", str(folder)]
    done = subprocess.run(
        [*command, "--python-version", PYTHON, *platforms, *WHEELS], capture_output=True, text=True, check=False
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise Unavailable(errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}")
