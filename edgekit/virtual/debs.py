"""The files inside a Debian package."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from edgekit.errors import IntegrityError
from edgekit.virtual.cpio import Entry, file, link
from edgekit.virtual.tools import tool

_MERGED = {"bin", "sbin", "lib"}  # links to the folders of these names in /usr, on every Debian since 12


def files_of(deb: bytes, name: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Files and links of a package whose path (``usr/bin/…``) is ``wanted``.

    Raises:
        IntegrityError: the package cannot be unpacked.
    """
    done = subprocess.run((tool("dpkg-deb"), "--fsys-tarfile", "-"), input=deb, capture_output=True)
    if done.returncode != 0:
        raise IntegrityError(f"the package {name} cannot be unpacked: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            path = _merged(member.name.removeprefix("./"))
            if not wanted(path):
                continue
            if member.issym():
                yield link(path, member.linkname)
            elif member.isreg() and (content := archive.extractfile(member)) is not None:
                yield file(path, content.read(), stat.S_IMODE(member.mode) & 0o755)


def _merged(path: str) -> str:
    first = PurePosixPath(path).parts[:1]
    return f"usr/{path}" if first and first[0] in _MERGED else path
