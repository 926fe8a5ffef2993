"""Which host key belongs to which board: OpenSSH's ``known_hosts`` and a file of our own in the same format."""

from __future__ import annotations

import base64
import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from edgekit.board import config_folder
from edgekit.errors import LinkError
from edgekit.files import storage_errors, write_atomic
from edgekit.links.ssh.address import Target, ssh_folder
from edgekit.links.ssh.errors import ChangedHostKey, UnknownHostKey


@dataclass(frozen=True)
class Entry:
    """One line: names (patterns or hashes), the key's type and its bytes in base64; where it stands."""

    marker: str
    names: tuple[str, ...]
    kind: str
    key: str
    place: str

    def names_host(self, name: str) -> bool:
        """Whether the line is about the host; a pattern with ``!`` takes it out."""
        if any(pattern.startswith("!") and _matches(pattern[1:], name) for pattern in self.names):
            return False
        return any(_matches(pattern, name) for pattern in self.names)


def own_file() -> Path:
    """The file that ``edgekit trust`` writes."""
    return config_folder() / "known_hosts"


def files() -> tuple[Path, ...]:
    """All files that are looked at."""
    return own_file(), ssh_folder() / "known_hosts", ssh_folder() / "known_hosts2", Path("/etc/ssh/ssh_known_hosts")


def known(name: str) -> list[Entry]:
    """What is known about a host."""
    return [entry for path in files() for entry in _entries(path) if entry.names_host(name)]


def known_kinds(name: str) -> list[str]:
    """The key types that are known of a host, to be asked for first: another type of its key would look like a stranger's."""
    return [entry.kind for entry in known(name) if not entry.marker]


def verify(target: Target, key: paramiko.PKey) -> None:
    """Make sure that the key is the host's.

    Raises:
        UnknownHostKey: nothing is known about the host.
        ChangedHostKey: its key was another one, or is revoked.
    """
    entries = known(target.known_as)
    mine = (key.get_name(), key.get_base64())
    if any(entry.marker == "@revoked" and (entry.kind, entry.key) == mine for entry in entries):
        raise ChangedHostKey(
            f"{target.address}: the host key {fingerprint(key)} is marked as revoked", "do not connect; ask who revoked it"
        )
    plain = [entry for entry in entries if not entry.marker]
    if any((entry.kind, entry.key) == mine for entry in plain):
        return
    if plain:
        raise _changed(target, key, plain[0])
    raise UnknownHostKey(
        f"{target.address}: the host key is unknown: {key.get_name()} {fingerprint(key)}",
        f"if that is the board's fingerprint, `edgekit trust {target.address}` enrols it (in scripts, with --fingerprint)",
    )


def enrol(target: Target, key: paramiko.PKey) -> Path:
    """Write the key to our own file, in the place of what stood there for this host; returns the file.

    Raises:
        StorageError: the file cannot be written.
    """
    path = own_file()
    with storage_errors(f"cannot make {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if not _is_about(line, target.known_as)]
    text = "\n".join([*kept, f"{target.known_as} {key.get_name()} {key.get_base64()}"]) + "\n"
    write_atomic(path, text.encode())
    return path


def fingerprint(key: paramiko.PKey) -> str:
    """``SHA256:…``, as ``ssh-keygen -l`` prints it."""
    text: str = key.fingerprint
    return text


def _changed(target: Target, key: paramiko.PKey, old: Entry) -> LinkError:
    elsewhere = not old.place.startswith(str(own_file()))
    remove = f"`ssh-keygen -R '{target.known_as}'`, then " if elsewhere else ""
    return ChangedHostKey(
        f"{target.address}: THE HOST KEY HAS CHANGED: now {key.get_name()} {fingerprint(key)}; {old.place} has {old.kind} "
        f"{_fingerprint(old)}. Either the board was installed anew, or its address belongs to another machine now, or somebody "
        "between you and the board reads along. Nothing was sent",
        "only if you know why it changed (on the board, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows its key): "
        f"{remove}`edgekit trust {target.address}`",
    )


def _fingerprint(entry: Entry) -> str:
    try:
        return fingerprint(paramiko.PKey.from_type_string(entry.kind, base64.b64decode(entry.key)))
    except (paramiko.SSHException, ValueError):
        return "(unreadable)"


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        try:
            return paramiko.HostKeys.hash_host(name, pattern) == pattern
        except (ValueError, AssertionError, IndexError):
            return False
    return pattern.lower() == name or (
        ("*" in pattern or "?" in pattern) and fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))
    )


def _entries(path: Path) -> Iterable[Entry]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        if (entry := _parse(line, f"{os.fspath(path)}:{number}")) is not None:
            yield entry


def _parse(line: str, place: str) -> Entry | None:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    return Entry(marker, tuple(fields[0].split(",")), fields[1], fields[2], place) if len(fields) >= 3 else None


def _is_about(line: str, name: str) -> bool:
    entry = _parse(line, "")
    return entry is not None and entry.names == (name,)
