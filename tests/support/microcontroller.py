"""A virtual microcontroller of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.virtual import M7, Settings, delete, start, virtual_boards
from tests.virtual.conftest import need


@contextmanager
def virtual_m7() -> Iterator[None]:
    """A new one runs inside; ``EDGEKIT_CONFIG`` names a folder of the test's own."""
    need("qemu-system-arm")
    try:
        start(Settings.from_profile(M7, machine=M7))
        yield
    finally:
        for one in virtual_boards():
            delete(one.name)
