"""From a status number of the board to the error that says whose fault it is and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smp.error import MGMT_ERR

from edgekit.errors import (
    BoardFull,
    BusyError,
    DataError,
    DeviceError,
    DivergedError,
    EdgekitError,
    InputError,
    IntegrityError,
    NoSession,
    StorageError,
)
from edgekit.protocol.messages import GROUP
from edgekit.protocol.status import Status

_VERSIONS = "are edgekit and the runner of one version? `edgekit doctor {device}` tells"

_FAULTS: dict[Status, tuple[type[EdgekitError], str]] = {
    Status.BAD_REQUEST: (DeviceError, _VERSIONS),
    Status.BUSY: (
        BusyError,
        "`edgekit stop {device}` stops it; a board that keeps sessions shows it with `edgekit sessions {device}`, and "
        "`edgekit attach {device} ID` watches it",
    ),
    Status.NO_PROGRAM: (DeviceError, "load a program first"),
    Status.NO_SESSION: (NoSession, "`edgekit sessions {device}` shows those that there are"),
    Status.BAD_PROGRAM: (IntegrityError, "compile the program again"),
    Status.BAD_DIGEST: (IntegrityError, "the file was changed or cut: copy it again, or compile it again"),
    Status.BAD_VERSION: (IntegrityError, "compile the program with the edgekit version that built the runner"),
    Status.WRONG_BOARD: (InputError, "compile the program for this board: `edgekit compile --board ID`"),
    Status.UNSUPPORTED_OP: (DeviceError, "compile the program with the edgekit version that built the runner"),
    Status.NO_MEMORY: (DeviceError, "a smaller batch or an update of fewer layers needs less; `edgekit inspect` tells how much"),
    Status.BAD_DATA: (DataError, "`edgekit inspect` tells the shapes that the program wants"),
    Status.BAD_LABEL: (DataError, "correct the targets, or compile with as many classes"),
    Status.NOT_FINITE: (DataError, "correct or leave out the sample"),
    Status.DIVERGED: (DivergedError, "a smaller learning rate, or --clip-norm 1"),
    Status.EMPTY_DATA: (DataError, "give at least one batch of samples, or compile with a smaller --batch"),
    Status.BAD_CHECKPOINT: (IntegrityError, "use a checkpoint of this very program"),
    Status.NO_SPACE: (BoardFull, "`edgekit clean {device}` frees what is not needed; or free some space on the board"),
    Status.NOT_FOUND: (StorageError, "check the path on the board"),
    Status.PERMISSION: (StorageError, "choose a path that the runner may use"),
    Status.IO: (StorageError, "the board's disk may be failing: see its kernel log"),
}


def device_error(code: int, why: str, device: str) -> EdgekitError:
    """The error for a status number of the training group; ``why`` is the runner's own text, ``device`` its address."""
    try:
        status = Status(code)
    except ValueError:
        return DeviceError(
            f"{device}: {why or 'no reason given'} (status {code}, unknown here)", "update edgekit on this machine"
        )
    kind, hint = _FAULTS.get(status, (DeviceError, ""))
    return kind(f"{device}: {why or status.name} ({status.name})", hint.replace("{device}", device))


def response_error(payload: Mapping[str, Any], device: str) -> EdgekitError | None:
    """The error that a response carries (SMP version 2: an ``err`` map); None where it is a success. ``device``: the address."""
    error = payload.get("err")
    versions = _VERSIONS.replace("{device}", device)
    if error is None:
        return None
    group, code = (error.get("group"), error.get("rc")) if isinstance(error, Mapping) else (None, None)
    if not isinstance(code, int):
        return DeviceError(f"{device} answers with an error that cannot be read: {error!r}", versions)
    why = str(payload.get("why", ""))
    if group == GROUP:
        return device_error(code, why, device)
    if (group, code) == (0, MGMT_ERR.EBUSY):
        return device_error(Status.BUSY, "a session runs", device)
    name = MGMT_ERR(code).name if code in set(MGMT_ERR) else str(code)
    return DeviceError(f"{device}: {why or 'request refused'} (SMP group {group}, {name})", versions)
