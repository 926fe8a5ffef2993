"""All errors that edgekit raises on purpose: one root, split by whose fault it is.

A message says what happened and where, its cause, and the next command or change to try.
"""

from __future__ import annotations


class EdgekitError(Exception):
    """Root. ``hint`` is the next thing to try; ``exit_code`` is the command line's (docs/exit-codes.md)."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(EdgekitError):
    """What the user gave does not work: a model, an option, a file."""

    exit_code = 2


class UnsupportedError(InputError):
    """The model uses something that edgekit cannot compile."""

    exit_code = 3


class DataError(InputError):
    """A data set does not fit the program, or holds NaN, or labels out of range."""

    exit_code = 4


class IntegrityError(EdgekitError):
    """A file is damaged: cut, changed, or of another version."""

    exit_code = 5


class LinkError(EdgekitError):
    """The way to the board failed."""

    exit_code = 6


class LinkLost(LinkError):
    """The connection broke, or nothing came through it in time: it may come back."""


class DeviceError(EdgekitError):
    """The board refused or failed."""

    exit_code = 7


class BusyError(DeviceError):
    """A session runs on the board."""


class NoSession(DeviceError):
    """There is no such session on the board, or none that runs."""


class DivergedError(DeviceError):
    """Training left the numbers: the loss became NaN or infinite."""

    exit_code = 8


class StorageError(EdgekitError):
    """A file could not be written or read: a full disk, a missing permission."""

    exit_code = 9


class BoardFull(StorageError):
    """The board's disk is full, or what edgekit may take of it is taken."""


class InternalError(EdgekitError):
    """A bug of edgekit."""

    exit_code = 70
