"""edgekit's own list of host keys, ``known_hosts`` in the configuration folder, in OpenSSH's format (sshd(8))."""

from __future__ import annotations

from pathlib import Path

from edgekit.board import config_folder
from edgekit.files import locked, storage_errors, write_atomic


def known_hosts_file() -> Path:
    """Where the list is."""
    return config_folder() / "known_hosts"


def enrol(host: str, public_key: str) -> None:
    """Let ``host`` (``[127.0.0.1]:2222``) be known by this key alone, and the key by this host alone.

    Raises:
        StorageError: the list cannot be read or written.
    """
    kind, key = public_key.split()[:2]
    _rewrite(host, key, [f"{host} {kind} {key}"])


def forget(host: str, public_key: str) -> None:
    """Take out what ``enrol`` put in.

    Raises:
        StorageError: the list cannot be read or written.
    """
    _rewrite(host, public_key.split()[1], [])


def _rewrite(host: str, key: str, added: list[str]) -> None:
    path = known_hosts_file()
    with storage_errors(f"cannot use {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(".known_hosts.lock")):
            before = path.read_text().splitlines() if path.exists() else []
            after = [kept for line in before if (kept := _without(line, host, key)) is not None] + added
            if after != before:
                write_atomic(path, "".join(f"{line}\n" for line in after).encode())


def _without(line: str, host: str, key: str) -> str | None:
    """A line without the host; None where the key is the line's or no other host is left."""
    fields = line.split(maxsplit=1)
    if len(fields) < 2 or line.startswith(("#", "@")):
        return line
    if key in fields[1].split():
        return None
    hosts = [name for name in fields[0].split(",") if name != host]
    return " ".join((",".join(hosts), fields[1])) if hosts else None
