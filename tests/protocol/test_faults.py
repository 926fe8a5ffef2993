"""Every status number becomes an error of the right kind, with the board's own words and a next step."""

from __future__ import annotations

import pytest

from edgekit.errors import (
    BoardFull,
    BusyError,
    DataError,
    DeviceError,
    DivergedError,
    InputError,
    IntegrityError,
    NoSession,
    StorageError,
)
from edgekit.protocol.faults import device_error, response_error
from edgekit.protocol.status import Status

KINDS = {
    DataError: (Status.BAD_DATA, Status.BAD_LABEL, Status.NOT_FINITE, Status.EMPTY_DATA),
    IntegrityError: (Status.BAD_PROGRAM, Status.BAD_DIGEST, Status.BAD_VERSION, Status.BAD_CHECKPOINT),
    InputError: (Status.WRONG_BOARD,),
    DivergedError: (Status.DIVERGED,),
    BoardFull: (Status.NO_SPACE,),
    StorageError: (Status.NOT_FOUND, Status.PERMISSION, Status.IO),
    BusyError: (Status.BUSY,),
    NoSession: (Status.NO_SESSION,),
    DeviceError: (Status.NO_PROGRAM, Status.NO_MEMORY, Status.UNSUPPORTED_OP, Status.BAD_REQUEST),
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, group in KINDS.items() for status in group])
def test_the_kind_follows_the_status(kind: type[Exception], status: Status) -> None:
    error = device_error(status, "sample 7 of inputs.npy", "kitchen")
    assert type(error) is kind
    assert "kitchen: sample 7 of inputs.npy" in error.message
    assert error.hint


def test_every_status_is_covered() -> None:
    assert {s for group in KINDS.values() for s in group} | {Status.OK, Status.UNKNOWN} == set(Status)


def test_the_message_layers_own_busy() -> None:
    assert type(response_error({"err": {"group": 0, "rc": 10}}, "kitchen")) is BusyError
    assert type(response_error({"err": {"group": 0, "rc": 8}}, "kitchen")) is DeviceError


def test_a_success_is_no_error() -> None:
    assert response_error({}, "kitchen") is None
    assert response_error({"state": "failed", "rc": 23}, "kitchen") is None
