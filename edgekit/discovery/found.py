"""What a search for boards finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Source = Literal["named", "virtual", "network", "usb"]


@dataclass(frozen=True)
class Found:
    """One place where a board is, or may be.

    Attributes:
        name: the device's, the announced host's or the port's.
        address: as commands take a DEVICE.
        link: what reaches it; None: nothing that edgekit has.
        facts: further ones, by name; None: unknown.
    """

    source: Source
    name: str
    address: str
    link: str | None
    facts: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What was found, and what could not be searched, and why."""

    found: tuple[Found, ...]
    notes: tuple[str, ...]
