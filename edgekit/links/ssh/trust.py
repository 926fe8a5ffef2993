"""Enrolling a board: its host key, shown to a person or compared with a fingerprint, goes to our own file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import paramiko

from edgekit.errors import InputError
from edgekit.links.deadline import Deadline
from edgekit.links.ssh import known_hosts
from edgekit.links.ssh.address import Target, resolve
from edgekit.links.ssh.connect import greet
from edgekit.links.ssh.connection import CONNECT_SECONDS
from edgekit.links.ssh.errors import ChangedHostKey, HostKeyError
from edgekit.links.ssh.secrets import Ask, ask


@dataclass(frozen=True)
class Offer:
    """The key that a host shows. ``known``: it is enrolled already; ``changed``: another one is."""

    target: Target
    key: paramiko.PKey
    known: bool
    changed: str

    @property
    def kind(self) -> str:
        return str(self.key.get_name())

    @property
    def fingerprint(self) -> str:
        """``SHA256:…``"""
        return known_hosts.fingerprint(self.key)

    def enrol(self) -> Path:
        """Believe the key from now on; the file that was written.

        Raises:
            StorageError: it cannot be written.
            ChangedHostKey: another key stands in a file that is not ours.
        """
        path = known_hosts.enrol(self.target, self.key)
        known_hosts.verify(self.target, self.key)
        return path


def ask_for_key(address: str, seconds: float = CONNECT_SECONDS, asking: Ask = ask) -> Offer:
    """The key that the host at ``address`` shows; nothing is written.

    Raises:
        InputError: the address cannot be read.
        LinkError: the host cannot be reached.
    """
    target = resolve(address)
    connected = greet(target, asking, Deadline.after(seconds))
    try:
        key = connected.transport.get_remote_server_key()
    finally:
        connected.close()
    try:
        known_hosts.verify(target, key)
    except ChangedHostKey as error:
        return Offer(target, key, False, error.message)
    except HostKeyError:
        return Offer(target, key, False, "")
    return Offer(target, key, True, "")


def check_fingerprint(offer: Offer, wanted: str) -> None:
    """Make sure that the key is the one that the user knows.

    Raises:
        InputError: ``wanted`` is no fingerprint.
        ChangedHostKey: it is another key's.
    """
    if not wanted.startswith("SHA256:"):
        raise InputError(
            f"{wanted!r} is no fingerprint", "it begins with SHA256: (`ssh-keygen -lf FILE.pub` on the board prints it)"
        )
    if offer.fingerprint.rstrip("=") != wanted.rstrip("="):
        raise ChangedHostKey(
            f"{offer.target.address}: the host shows {offer.fingerprint}, not {wanted}",
            "this is not the machine you expect, or it has several keys: `ssh-keygen -lf` on the board shows them all",
        )
