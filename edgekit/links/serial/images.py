"""Firmware images over a line: SMP's image group. A board has two slots; what runs in one of them is replaced in the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from smp.image_management import ImageStatesReadRequest, ImageStatesWriteRequest, ImageUploadWriteRequest
from smp.message import ReadRequest, WriteRequest

from edgekit.errors import DeviceError, EdgekitError, IntegrityError, UnsupportedError
from edgekit.links.deadline import Deadline
from edgekit.links.serial.chunks import send_chunks
from edgekit.links.serial.exchange import ask, refusal
from edgekit.links.serial.line import Line

_NOT_SUPPORTED = -8  #: mcumgr's, of a firmware without slots
#: By the group's codes: what is wrong, what to do.
_WORDS = {
    3: ("there is no such image on the board", "flash it again"),
    9: ("the other slot holds what the board goes back to", "confirm the firmware that runs, or reset the board"),
    12: ("the board's flash cannot be written", "try again; if it stays so, the flash is worn out"),
    13: ("the board's flash cannot be erased", "try again; if it stays so, the flash is worn out"),
    22: ("the board does not take such an image", 'docs/microcontrollers.md, "Firmware images"'),
    23: ("this is no firmware image", "`imgtool sign` makes one; docs/microcontrollers.md"),
    24: (
        "the board does not accept the image's signature or SHA-256",
        'it trusts the key that its bootloader was built with: sign with that one (docs/microcontrollers.md, "Keys")',
    ),
    25: ("the image is linked for another slot, or another board", "build it for the slot that does not run"),
    28: ("the firmware that runs is on trial itself", "confirm it, or reset the board"),
    30: ("the image is larger than the slot", "build it smaller: another optimisation, fewer ops"),
}


@dataclass(frozen=True)
class Slot:
    """An image on the board. ``pending``: it runs once at the next start; ``bootable``: it is whole and signed."""

    slot: int
    version: str
    hash: bytes
    bootable: bool = False
    pending: bool = False
    confirmed: bool = False
    active: bool = False


def slots(line: Line, deadline: Deadline) -> list[Slot]:
    """What is in the slots; empty ones are left out.

    Raises:
        UnsupportedError: the board's firmware has no slots.
        LinkLost: the line is gone, or the deadline over.
    """
    return _states(_answer(line, ImageStatesReadRequest(), deadline))


def upload_image(line: Line, data: bytes, deadline: Deadline) -> Iterator[int]:
    """Bring an image into the slot that does not run; gives the bytes that are there now and then. What a cut of the line or of
    the board's power left goes on: the first number that comes is larger than a message.

    Raises:
        DeviceError: the board refuses it.
        IntegrityError: what the board has is not what was sent.
        LinkLost: the line is gone, or the deadline over.
    """
    answer = yield from send_chunks(line, _Chunks(data, hashlib.sha256(data).digest()), deadline)
    if (code := refusal(answer)) is not None:
        raise _refused(line, code)
    if answer.get("match") is False:
        raise IntegrityError(
            f"{line.name}: what the board's flash holds is not what was sent, and the board has erased it",
            "try again; if it stays so, the flash is worn out",
        )


def try_image(line: Line, image_hash: bytes, deadline: Deadline) -> list[Slot]:
    """Let an image run once, at the next start. The board verifies all of it, and its signature, before.

    Raises:
        DeviceError: the board refuses it.
        IntegrityError: the board does not accept its signature or SHA-256.
        LinkLost: the line is gone, or the deadline over.
    """
    return _states(_answer(line, ImageStatesWriteRequest(hash=image_hash, confirm=False), deadline))


def confirm_image(line: Line, deadline: Deadline) -> list[Slot]:
    """The image that runs stays.

    Raises: as ``try_image`` does.
    """
    return _states(_answer(line, ImageStatesWriteRequest(confirm=True), deadline))


@dataclass(frozen=True)
class _Chunks:
    data: bytes
    sha: bytes
    extra: int = 0

    def request(self, offset: int, part: bytes) -> ImageUploadWriteRequest:
        if offset:
            return ImageUploadWriteRequest(off=offset, data=part)
        return ImageUploadWriteRequest(off=0, data=part, image=0, len=len(self.data), sha=self.sha)


def _answer(line: Line, request: ReadRequest | WriteRequest, deadline: Deadline) -> Any:
    answer = ask(line, request, deadline)
    if (code := refusal(answer)) is not None:
        raise _refused(line, code)
    return answer


def _states(answer: Any) -> list[Slot]:
    known = Slot.__dataclass_fields__
    return [Slot(**{key: value for key, value in image.items() if key in known}) for image in answer["images"]]


def _refused(line: Line, code: int) -> EdgekitError:
    if code == _NOT_SUPPORTED:
        return UnsupportedError(
            f"{line.name}: this board's firmware has no slots to update it in",
            'bring bootloader and firmware by the board\'s own programmer once (docs/microcontrollers.md, "The first time")',
        )
    what, hint = _WORDS.get(code, (f"the board refuses it (code {code})", "are edgekit and the firmware of one version?"))
    return (IntegrityError if code == 24 else DeviceError)(f"{line.name}: {what}", hint)
