"""Train neural networks on edge boards.

``compile`` a PyTorch model into a Program, ``connect`` to a board, train there. Names are imported when they are first
used: PyTorch, which takes seconds to import, only where it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgekit.errors import (
    DataError,
    DeviceError,
    DivergedError,
    EdgekitError,
    InputError,
    IntegrityError,
    InternalError,
    LinkError,
    StorageError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from edgekit.compilation import Int8, compile
    from edgekit.program import Program, load
    from edgekit.sessions import Device, Metrics, Session, connect
    from edgekit.telemetry import Record
    from edgekit.training.optimizers import SGD

__all__ = [
    "SGD",
    "DataError",
    "Device",
    "DeviceError",
    "DivergedError",
    "EdgekitError",
    "InputError",
    "Int8",
    "IntegrityError",
    "InternalError",
    "LinkError",
    "Metrics",
    "Program",
    "Record",
    "Session",
    "StorageError",
    "UnsupportedError",
    "compile",
    "connect",
    "load",
]

_HOMES = {
    "SGD": "edgekit.training.optimizers",
    "Device": "edgekit.sessions",
    "Int8": "edgekit.compilation",
    "Metrics": "edgekit.sessions",
    "Program": "edgekit.program",
    "Record": "edgekit.telemetry",
    "Session": "edgekit.sessions",
    "compile": "edgekit.compilation",
    "connect": "edgekit.sessions",
    "load": "edgekit.program",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
