"""Bytes to and from a board. ``open_link`` chooses the way by the address."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable

from edgekit.board import this_architecture
from edgekit.errors import InputError
from edgekit.firmware.build import build
from edgekit.links.deadline import Deadline, LinkTimeout
from edgekit.links.link import Link
from edgekit.links.local import LocalLink

__all__ = ["Deadline", "Link", "LinkTimeout", "LocalLink", "native_target", "open_link"]


def open_link(address: str, *, threads: int | None = None, isa: str | None = None) -> Link:
    """Open the link to the board at ``address``, its runner started with the options given.

    Raises:
        InputError: no link has this kind of address.
        LinkError: the board cannot be reached.
    """
    scheme, separator, rest = address.partition("://")
    opener = _SCHEMES.get(scheme)
    if opener is None:
        known = ", ".join(repr(name) for name in _SCHEMES)
        raise InputError(
            f"no way to a board at {address!r}: this version of edgekit knows {known}", "use 'local' for this machine"
        )
    if scheme == "local" and separator:
        raise InputError(f"{address!r}: this machine's address is just 'local'")
    return opener(rest, [*_option("--threads", threads), *_option("--isa", isa)])


def native_target() -> str:
    """The build target of this machine's own runner."""
    system = "macos" if sys.platform == "darwin" else "linux"
    return f"{this_architecture()}-{system}"


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _open_local(_: str, options: list[str]) -> Link:
    own = os.environ.get("EDGEKIT_RUNNER")  # a command: a runner built elsewhere, or one under an emulator
    return LocalLink([*(shlex.split(own) if own else [str(build("runner", native_target()))]), *options])


#: One row a kind of address: the part before ``://``, and what opens it from the rest and the runner's options.
_SCHEMES: dict[str, Callable[[str, list[str]], Link]] = {"local": _open_local}
