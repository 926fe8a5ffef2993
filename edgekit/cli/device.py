"""A connected board, for commands: what moves to and from it is shown on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import edgekit
from edgekit.cli.output import stderr
from edgekit.cli.progress import TransferProgress

if TYPE_CHECKING:
    from edgekit.sessions import Device


@contextmanager
def open_device(
    address: str,
    *,
    threads: int | None = None,
    isa: str | None = None,
    board: str | None = None,
    budget: int | None = None,
) -> Iterator[Device]:
    """``edgekit.connect`` with a bar for big files."""
    moved = TransferProgress(stderr())
    try:
        with edgekit.connect(address, threads=threads, isa=isa, board=board, budget=budget, progress=moved) as device:
            yield device
    finally:
        moved.stop()
