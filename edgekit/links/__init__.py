"""Bytes to and from a board. ``open_link`` chooses the way by the address."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable

from edgekit.board import this_architecture
from edgekit.devices import full_address
from edgekit.errors import InputError
from edgekit.firmware.build import build
from edgekit.links.deadline import Deadline, LinkTimeout
from edgekit.links.link import Link
from edgekit.links.local import LocalLink
from edgekit.links.progress import Moved, Progress, silent

log = logging.getLogger("edgekit")

__all__ = ["Deadline", "Link", "LinkTimeout", "LocalLink", "Moved", "Progress", "native_target", "open_link", "split_address"]


def open_link(address: str, *, threads: int | None = None, isa: str | None = None, progress: Progress = silent) -> Link:
    """Open the link to the board at ``address``, or to the device of that name, its runner started with the options given.

    ``progress`` is told while files move, where they do.

    Raises:
        InputError: no link has this kind of address.
        LinkError: the board cannot be reached.
    """
    scheme, rest = split_address(full_address(address))
    return _SCHEMES[scheme](rest, [*_option("--threads", threads), *_option("--isa", isa)], progress)


def split_address(address: str) -> tuple[str, str]:
    """The kind of an address (a key of _SCHEMES), and what follows ``://``.

    Raises:
        InputError: no link has this kind of address.
    """
    scheme, separator, rest = address.partition("://")
    if scheme not in _SCHEMES:
        known = ", ".join(repr(name) for name in _SCHEMES)
        raise InputError(
            f"no way to a board at {address!r}: this version of edgekit knows {known}",
            "use 'local' for this machine, ssh://user@host or serial:///dev/ttyACM0 for a board; see `edgekit devices`",
        )
    if scheme == "local" and separator:
        raise InputError(f"{address!r}: this machine's address is just 'local'")
    return scheme, rest


def native_target() -> str:
    """The build target of this machine's own runner."""
    system = "macos" if sys.platform == "darwin" else "linux"
    return f"{this_architecture()}-{system}"


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _open_local(_: str, options: list[str], __: Progress) -> Link:
    own = os.environ.get("EDGEKIT_RUNNER")  # a command: a runner built elsewhere, or one under an emulator
    return LocalLink([*(shlex.split(own) if own else [str(build("runner", native_target()))]), *options])


def _open_ssh(rest: str, options: list[str], progress: Progress) -> Link:
    from edgekit.links.ssh import Connection, SshLink  # paramiko takes its time to import

    return SshLink(Connection(f"ssh://{rest}"), options, progress)


def _open_serial(rest: str, options: list[str], progress: Progress) -> Link:
    return _open_line(f"serial://{rest}", options, progress)


def _open_socket(rest: str, options: list[str], progress: Progress) -> Link:
    return _open_line(f"socket://{rest}", options, progress)


def _open_line(address: str, options: list[str], progress: Progress) -> Link:
    from edgekit.links.serial import SerialLink, open_line

    if options:
        raise InputError(f"{address}: a microcontroller has one thread and one instruction set", f"leave out {options[0]}")
    return SerialLink(open_line(address, lambda text: log.debug("board: %s", text)), progress)


#: One row a kind of address: the part before ``://``, and what opens it from the rest, the runner's options, and who is told.
_SCHEMES: dict[str, Callable[[str, list[str], Progress], Link]] = {
    "local": _open_local,
    "ssh": _open_ssh,
    "serial": _open_serial,
    "socket": _open_socket,
}
