"""From an address to a verified, authenticated SSH transport, through jump hosts where the configuration says so."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from dataclasses import dataclass

import paramiko

from edgekit.errors import LinkError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import known_hosts
from edgekit.links.ssh.address import Target
from edgekit.links.ssh.errors import ConnectionLost, NameNotResolved, NotSsh, Refused, Unreachable
from edgekit.links.ssh.login import log_in
from edgekit.links.ssh.secrets import Ask
from edgekit.links.ssh.sockets import Raw, Socket, tune
from edgekit.links.ssh.transport import Transport

KEEP_ALIVE = 15  #: seconds without traffic before a message keeps routers from forgetting the connection
WINDOW = 1 << 24  #: bytes that the board may send ahead
_LOG = "edgekit.links.ssh.paramiko"

#: Fastest first, as measured by benchmarks/transfer.py: one pass of AES-GCM, and no second one for a checksum.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr", "aes192-ctr")


@dataclass(frozen=True)
class Connected:
    """A transport, the socket below it, and the transports of the jump hosts."""

    target: Target
    transport: Transport
    socket: Socket
    below: tuple[paramiko.Transport, ...]

    def close(self) -> None:
        for transport in (self.transport, *reversed(self.below)):
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                transport.close()


def connect(target: Target, ask: Ask, deadline: Deadline) -> Connected:
    """Connect, verify the host key, log in.

    Raises:
        LinkError: one class a fault (edgekit.links.ssh.errors).
    """
    connected = greet(target, ask, deadline)
    try:
        admit(connected, ask, deadline)
    except BaseException:
        connected.close()
        raise
    return connected


def admit(connected: Connected, ask: Ask, deadline: Deadline) -> None:
    """Verify the host key and log in."""
    known_hosts.verify(connected.target, connected.transport.get_remote_server_key())
    log_in(connected.transport, connected.target, ask, deadline)
    connected.transport.set_keepalive(KEEP_ALIVE)


def greet(target: Target, ask: Ask, deadline: Deadline) -> Connected:
    """Connect and exchange keys, without believing the host key yet. Jump hosts are verified and logged in to."""
    below: list[paramiko.Transport] = []
    try:
        raw: Raw | None = None
        for hop in target.jumps:
            inner = _handshake(hop, raw or _tcp(hop, deadline), deadline)
            below.append(inner.transport)
            known_hosts.verify(hop, inner.transport.get_remote_server_key())
            log_in(inner.transport, hop, ask, deadline)
            inner.transport.set_keepalive(KEEP_ALIVE)
            following = (*target.jumps, target)[len(below)]
            raw = _through(inner.transport, hop, following, deadline)
        done = _handshake(target, raw or _tcp(target, deadline), deadline)
        return Connected(target, done.transport, done.socket, tuple(below))
    except BaseException:
        for transport in reversed(below):
            transport.close()
        raise


def _tcp(target: Target, deadline: Deadline) -> socket.socket:
    place = f"{target.address}: {target.host} port {target.port}"
    try:
        connection = socket.create_connection((target.host, target.port), timeout=max(deadline.remaining(), 0.001))
    except socket.gaierror as error:
        raise NameNotResolved(
            f"{target.address}: the name {target.host!r} has no address ({error.strerror})",
            "is it spelled right, and on this network? `ping` it, or use its IP address",
        ) from error
    except TimeoutError as error:
        raise Unreachable(f"{place} does not answer within {deadline.seconds:g} s", _UNREACHABLE) from error
    except ConnectionRefusedError as error:
        raise Refused(
            f"{place} refuses the connection: the machine is up, and no SSH server listens there",
            _SWITCHED_OFF if target.host in ("127.0.0.1", "::1", "localhost") else _NO_SERVER,
        ) from error
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN):
            raise Unreachable(f"{place} cannot be reached: {error.strerror}", _UNREACHABLE) from error
        raise LinkError(f"{place}: {error.strerror or error}", _UNREACHABLE) from error
    tune(connection)
    try:
        _await_greeting(connection, target, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def _await_greeting(connection: socket.socket, target: Target, deadline: Deadline) -> None:
    """An SSH server speaks first."""
    place = f"{target.address}: {target.host} port {target.port}"
    if not select.select([connection], [], [], deadline.remaining())[0]:
        raise deadline.expired(f"{place} takes the connection and says nothing") from None
    try:
        first = connection.recv(4, socket.MSG_PEEK)
    except OSError as error:
        raise ConnectionLost(f"{place}: {error.strerror}", _CLOSED) from error
    if not first:
        raise ConnectionLost(f"{place} closes the connection at once", _CLOSED)


def _through(transport: paramiko.Transport, hop: Target, to: Target, deadline: Deadline) -> Raw:
    try:
        channel = transport.open_channel(
            "direct-tcpip", (to.host, to.port), ("127.0.0.1", 0), timeout=max(deadline.remaining(), 0.1)
        )
    except paramiko.ChannelException as error:
        kind = Refused if error.code == 2 else LinkError
        why = error.text or "no reason given"
        raise kind(
            f"{to.address}: the jump host {hop.host} cannot connect to {to.host} port {to.port} ({why})",
            f"try it there: `ssh {hop.user}@{hop.host} -p {hop.port} -W {to.host}:{to.port}`",
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        if deadline.remaining() <= 0:
            raise deadline.expired(f"{to.address}: the way through {hop.host}") from error
        raise ConnectionLost(f"{to.address}: the connection through {hop.host} is lost: {error}", _CLOSED) from error
    return channel


def _handshake(target: Target, raw: Raw, deadline: Deadline) -> Connected:
    """Exchange versions and keys."""
    below = Socket(raw)
    below.end = deadline.end
    logging.getLogger(_LOG).setLevel(
        logging.DEBUG if logging.getLogger("edgekit").isEnabledFor(logging.DEBUG) else logging.CRITICAL + 1
    )
    transport = Transport(below, default_window_size=WINDOW)  # type: ignore[arg-type]  # whatever sends and receives will do
    transport.set_log_channel(_LOG)
    transport.banner_timeout = transport.handshake_timeout = max(deadline.remaining(), 0.1)
    _prefer(transport, target)
    try:
        transport.start_client(timeout=deadline.remaining())
        if not transport.initial_kex_done:
            raise deadline.expired(f"{target.address}: the exchange of keys with {target.host} port {target.port}")
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        raise _no_handshake(target, transport, error, deadline) from error
    except BaseException:
        transport.close()
        raise
    return Connected(target, transport, below, ())


def _prefer(transport: paramiko.Transport, target: Target) -> None:
    """Ask for fast ciphers, and first for the key types that are known of this host."""
    options = transport.get_security_options()
    options.ciphers = tuple(c for c in _CIPHERS if c in options.ciphers)
    kinds = known_hosts.known_kinds(target.known_as)
    signed = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
    wanted = [name for kind in kinds for name in signed.get(kind, (kind,)) if name in options.key_types]
    options.key_types = tuple(dict.fromkeys([*wanted, *options.key_types]))


def _no_handshake(target: Target, transport: paramiko.Transport, error: Exception, deadline: Deadline) -> LinkError:
    place = f"{target.address}: {target.host} port {target.port}"
    if deadline.remaining() <= 0:
        return deadline.expired(f"{place}: the exchange of keys")
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return NotSsh(
            f"{place}: the SSH server and edgekit have no method in common: {error}", "a newer OpenSSH on the board helps"
        )
    if not transport.remote_version:
        return NotSsh(f"{place} is no SSH server: it does not begin with an SSH greeting", "is the port right?")
    return ConnectionLost(f"{place}: the connection broke while keys were exchanged: {error or 'closed'}", _CLOSED)


_NO_SERVER = "is the SSH server enabled (`sudo systemctl enable --now ssh` on the board), and is the port right?"
_SWITCHED_OFF = "a virtual board? `edgekit virtual list` shows whether it runs, `edgekit virtual start NAME` starts it"
_UNREACHABLE = "is the board powered and on this network? `ping` it"
_CLOSED = "too many connections at once, a firewall, or the board just starts: try again in a moment"
