"""Real Debian packages, and a package source of them on this disk."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path


def make_deb(folder: Path, name: str, files: dict[str, bytes], depends: str = "", links: dict[str, str] | None = None) -> Path:
    """Make ``<name>.deb`` for arm64."""
    tree = folder / f"{name}.tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(control(name, depends))
    for path, data in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    for path, target in (links or {}).items():
        (tree / path).symlink_to(target)
    deb = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(deb)], check=True, capture_output=True)
    return deb


def control(name: str, depends: str = "") -> str:
    """A package's own description."""
    return (
        f"Package: {name}\nVersion: 1:2-3\nArchitecture: arm64\nMaintainer: edgekit <edgekit@example.org>\n"
        + (f"Depends: {depends}\n" if depends else "")
        + "Description: for a test\n"
    )


def index(folder: Path, depends: dict[str, str]) -> None:
    """Write the index of the packages in ``folder``, with what each depends on."""
    stanzas = []
    for name, needs in depends.items():
        data = (folder / f"{name}.deb").read_bytes()
        place = f"Filename: ./{name}.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        stanzas.append(control(name, needs) + place)
    (folder / "Packages").write_text("\n".join(stanzas))


def sources(folder: Path) -> str:
    """The folder as a package source."""
    return f"Types: deb\nURIs: file:{folder}\nSuites: ./\nTrusted: yes\n"
