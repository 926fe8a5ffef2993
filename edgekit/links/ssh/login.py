"""Proving who we are: the configured keys, then the agent's, then a password where a person can type it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from edgekit.links.deadline import Deadline
from edgekit.links.ssh.address import Target
from edgekit.links.ssh.errors import AuthenticationFailed, ConnectionLost
from edgekit.links.ssh.secrets import Ask
from edgekit.links.ssh.transport import Transport

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Key:
    """A key to try and what it is called in messages."""

    key: paramiko.PKey
    label: str


def log_in(transport: Transport, target: Target, ask: Ask, deadline: Deadline) -> None:
    """Log in as ``target.user``.

    Raises:
        AuthenticationFailed: with what was tried; never with a secret.
    """
    tried: list[str] = []
    allowed = {"publickey"}
    for candidate in _keys(target, ask, tried):
        transport.auth_timeout = max(deadline.remaining(), 0.1)
        try:
            transport.auth_publickey(target.user, candidate.key)
        except paramiko.BadAuthenticationType as error:
            allowed = set(error.allowed_types)
        except paramiko.SSHException:
            _check_alive(transport, target, candidate.label, deadline, tried)
            _log.debug("%s: %s is not accepted", target.address, candidate.label)
        if transport.is_authenticated():
            return
        tried.append(candidate.label)
        if "publickey" not in allowed:
            break
    if not _by_password(transport, target, ask, deadline, tried):
        raise _refused(target, tried)


def _keys(target: Target, ask: Ask, tried: list[str]) -> Iterator[_Key]:
    if not target.chosen:  # an agent with many keys would use up the server's patience before a key that the user named
        yield from _agent_keys(target)
    for path in target.identities:
        yield from _file_keys(path, ask, tried)
    if target.chosen:
        yield from _agent_keys(target)


def _agent_keys(target: Target) -> Iterator[_Key]:
    if not target.agent or target.only:
        return
    try:
        agent = paramiko.Agent()
        keys = agent.get_keys()
    except (paramiko.SSHException, OSError) as error:
        _log.debug("the SSH agent does not answer: %s", error)
        return
    for key in keys:
        yield _Key(key, f"the agent's key {key.comment or key.get_name()}")


def _file_keys(path: Path, ask: Ask, tried: list[str]) -> Iterator[_Key]:
    if not path.is_file():
        return
    key = _load(path, ask, tried)
    if key is None:
        return
    yield _Key(key, str(path))


def _load(path: Path, ask: Ask, tried: list[str]) -> paramiko.PKey | None:
    """The key, with its certificate (``<path>-cert.pub``) if any; None, with a note in ``tried``, where it cannot be used."""
    try:
        return paramiko.PKey.from_path(str(path))
    except (paramiko.PasswordRequiredException, TypeError):
        pass  # TypeError: cryptography's word for an encrypted key
    except (OSError, ValueError, paramiko.SSHException) as error:
        tried.append(f"{path} (not readable as a key: {type(error).__name__})")
        return None
    secret = ask(f"passphrase of {path}")
    if secret is None:
        tried.append(f"{path} (needs its passphrase: `ssh-add {path}`)")
        return None
    try:
        return paramiko.PKey.from_path(str(path), password=secret.encode())  # type: ignore[arg-type]  # its stub says str, what it calls wants bytes
    except (OSError, ValueError, TypeError, paramiko.SSHException):
        tried.append(f"{path} (wrong passphrase)")
        return None


def _by_password(transport: Transport, target: Target, ask: Ask, deadline: Deadline, tried: list[str]) -> bool:
    transport.auth_timeout = max(deadline.remaining(), 0.1)
    try:
        transport.auth_none(target.user)
        return transport.is_authenticated()
    except paramiko.BadAuthenticationType as error:
        allowed = error.allowed_types
    except paramiko.SSHException:
        _check_alive(transport, target, "no key", deadline, tried)
        return False
    if not {"password", "keyboard-interactive"} & set(allowed):
        return False
    secret = ask(f"password of {target.user}@{target.host}")
    if secret is None:
        tried.append("no password (standard input is no terminal)")
        return False
    try:
        transport.auth_password(target.user, secret)
    except paramiko.SSHException:
        _check_alive(transport, target, "the password", deadline, tried)
        tried.append("the password")
    return transport.is_authenticated()


def _check_alive(transport: Transport, target: Target, label: str, deadline: Deadline, tried: list[str]) -> None:
    """Tell a server that hangs up from one that says no."""
    if deadline.remaining() <= 0:
        raise deadline.expired(f"{target.address}: logging in") from None
    if transport.is_active():
        return
    if transport.farewell:
        raise _refused(target, [*tried, label, f"then the server hung up: {transport.farewell}"])
    raise ConnectionLost(f"{target.address}: the connection broke while logging in as {target.user}", _AGAIN) from None


_AGAIN = "try again; the board's log (`journalctl -u ssh`) may tell more"


def _refused(target: Target, tried: list[str]) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"{target.address}: {target.host} does not let {target.user} in; tried: {', '.join(tried) or 'nothing, there is no key'}",
        f"put your key there: `ssh-copy-id -p {target.port} {target.user}@{target.host}`; `ssh -v` shows more",
    )
