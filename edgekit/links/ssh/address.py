"""``ssh://[user@]host[:port]``, and what ``~/.ssh/config`` says about that host."""

from __future__ import annotations

import getpass
import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import paramiko

from edgekit.devices import find
from edgekit.errors import InputError

PORT = 22
_FORM = "an address is ssh://[user@]host[:port]; host may be an alias of ~/.ssh/config"
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_JUMPS = 8


@dataclass(frozen=True)
class Target:
    """Where to connect and as whom.

    Attributes:
        address: as the user wrote it, for messages.
        known_as: the name that the host key is kept under: HostKeyAlias, or the host with its port where that is not 22.
        identities: key files, in the order to try.
        chosen: the identities were named in the configuration, not just the usual ones.
        only: nothing but the identities is to be tried (IdentitiesOnly).
        agent: the agent's keys are tried too.
        jumps: hosts to go through, the first one first.
    """

    address: str
    user: str
    host: str
    port: int
    known_as: str
    identities: tuple[Path, ...] = ()
    chosen: bool = False
    only: bool = False
    agent: bool = True
    jumps: tuple[Target, ...] = ()


def resolve(address: str, config: Path | None = None) -> Target:
    """The target of ``ssh://…``, completed from the named devices and the user's SSH configuration (``~/.ssh/config``).

    Raises:
        InputError: the address or the configuration cannot be read, or asks for what edgekit does not do.
    """
    device = find(address)
    target = _resolve(device.address if device else address, _read(config or ssh_folder() / "config"), 0)
    if device is None or device.identity_file is None:
        return target
    return replace(target, address=address, identities=(device.identity_file,), chosen=True, only=True)


def ssh_folder() -> Path:
    """Where OpenSSH keeps the user's things."""
    return Path.home() / ".ssh"


def _resolve(address: str, config: paramiko.SSHConfig, depth: int) -> Target:
    user, host, port = parse(address)
    options = config.lookup(host)
    if options.get("proxycommand"):
        raise InputError(
            f"{address}: ~/.ssh/config sets ProxyCommand for {host}, which edgekit does not run",
            "use ProxyJump: `ProxyJump user@host`",
        )
    port = port or _number(options.get("port", str(PORT)), address)
    name = str(options["hostname"])
    files: list[str] = options.get("identityfile", [])  # type: ignore[assignment]  # a list, whatever the stubs say
    usual = [ssh_folder() / key for key in _DEFAULT_KEYS]
    return Target(
        address=address,
        user=user or options.get("user") or getpass.getuser(),
        host=name,
        port=port,
        known_as=options.get("hostkeyalias") or known_name(name, port),
        identities=tuple(Path(file).expanduser() for file in files) or tuple(usual),
        chosen=bool(files),
        only=options.get("identitiesonly", "no").lower() == "yes",
        agent=options.get("identityagent", "").lower() != "none",
        jumps=tuple(_jumps(str(options.get("proxyjump", "none")), address, config, depth)),
    )


def parse(address: str) -> tuple[str, str, int]:
    """User (may be empty), host and port (0: not given).

    Raises:
        InputError: it has another form.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise InputError(f"{address!r} is no address: {error}", _FORM) from error
    if parts.scheme != "ssh" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InputError(f"{address!r} is no address of a board", _FORM)
    if parts.password is not None:
        secretless = f"ssh://{parts.username}@{parts.hostname}"
        raise InputError(
            f"the address of {parts.hostname} holds a password; it would end up in logs and process lists",
            f"log in with a key: `ssh-copy-id {parts.username}@{parts.hostname}`, then use {secretless}",
        )
    host = parts.netloc.rpartition("@")[2]  # as written: urlsplit makes it lowercase, and an alias may have capitals
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", host) or host.startswith("-"):
        raise InputError(f"{address!r}: {host!r} is no name of a host", _FORM)
    return parts.username or "", host, port or 0


def known_name(host: str, port: int) -> str:
    """A host's name in known_hosts."""
    return host.lower() if port == PORT else f"[{host.lower()}]:{port}"


def _jumps(value: str, address: str, config: paramiko.SSHConfig, depth: int) -> Iterator[Target]:
    if value.lower() == "none":
        return
    if depth >= _MAX_JUMPS:
        raise InputError(f"{address}: ProxyJump leads through more than {_MAX_JUMPS} hosts", "does it lead back to itself?")
    for hop in value.split(","):
        target = _resolve(hop if hop.startswith("ssh://") else f"ssh://{_bracketed(hop.strip())}", config, depth + 1)
        yield from target.jumps
        yield target


def _bracketed(hop: str) -> str:
    user, at, host = hop.rpartition("@")
    try:
        return f"{user}{at}[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return hop


def _number(text: str, address: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{address}: ~/.ssh/config has the port {text!r}", "a port is a number") from error


def _read(path: Path) -> paramiko.SSHConfig:
    try:
        return paramiko.SSHConfig.from_path(os.fspath(path))
    except FileNotFoundError:
        return paramiko.SSHConfig()
    except (OSError, UnicodeDecodeError, paramiko.SSHException) as error:
        raise InputError(f"{path} cannot be read: {error}", "`ssh -G HOST` checks it") from error
