"""What every way to a board can do, whatever carries it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgekit.links.deadline import Deadline


class Link(Protocol):
    """A reliable, ordered stream of bytes to one board's runner, and files to and from the board.

    Every call raises LinkError: the board cannot be reached, is gone, or did not answer before the deadline.
    """

    @property
    def name(self) -> str:
        """The board's address, for messages."""

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Hand over ``data`` whole."""

    def receive(self, deadline: Deadline) -> bytes:
        """The bytes that have come, at least one; where a message ends is not the link's business."""

    def board_path(self, local: Path) -> str:
        """Where a file that is ``local`` here lies on the board, whether it is there yet or not."""

    def user_path(self, path: str) -> str:
        """What a user calls ``path`` on the board, absolute: a relative one, and ``~``, begin at the login's home folder."""

    def put_file(self, local: Path, deadline: Deadline) -> str:
        """Bring a file or a folder to the board; returns its path there."""

    def missing(self, local: Path, deadline: Deadline) -> int:
        """Bytes of a file or a folder that ``put_file`` would have to send. What the board has counts as used."""

    def bring(self, data: bytes, remote: str, deadline: Deadline) -> Iterator[None]:
        """Write a file on the board piece by piece, one when the next item is asked for: in between the link can do other things.

        The file is there, whole, at the end; what an earlier call wrote, which was interrupted, is not sent again.
        """

    def get_file(self, remote: str, local: Path, deadline: Deadline) -> None:
        """Fetch a file from the board, whole or not at all."""

    def close(self) -> None:
        """End the connection; again and again is fine."""


@runtime_checkable
class StoringLink(Link, Protocol):
    """A link whose board keeps what it was sent (docs/session-host.md)."""

    def usage(self) -> str:
        """What takes how much of the board's home, in the words of ``edgekit-runner usage``."""
