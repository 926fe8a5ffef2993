"""What flashing a microcontroller will do: what it runs now, and a list of steps that is printed and carried out as it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import DeviceError, InputError, UnsupportedError
from edgekit.files import storage_errors
from edgekit.firmware.build import TARGETS, Progress
from edgekit.links.deadline import Deadline
from edgekit.links.serial import SerialLink
from edgekit.links.serial.images import Slot, slots
from edgekit.mcuboot import Image, make_image, read_image
from edgekit.protocol import Client
from edgekit.protocol.messages import Info


@dataclass(frozen=True)
class GoBack:
    """Reset the board, whose firmware is on trial since somebody else's flash: it returns to the one before, in ``slot``."""

    slot: int

    def __str__(self) -> str:
        return f"reset the board: its firmware was never confirmed, and it goes back to slot {self.slot}"


@dataclass(frozen=True)
class Upload:
    """Bring the image to the slot that does not run, or the rest of it."""

    slot: int
    image: Image

    def __str__(self) -> str:
        return f"upload {len(self.image.data) / 1024:.0f} KiB ({self.image.release}) to slot {self.slot}"


@dataclass(frozen=True)
class Trial:
    """Have the board verify the image, and let it run once."""

    slot: int
    hash: bytes

    def __str__(self) -> str:
        return f"verify the SHA-256 {self.hash.hex()[:12]}… and its signature on the board, and let slot {self.slot} run once"


@dataclass(frozen=True)
class Reset:
    """Restart the board into a slot."""

    slot: int

    def __str__(self) -> str:
        return f"reset the board, if no session runs, and wait until it answers from slot {self.slot}"


@dataclass(frozen=True)
class Health:
    """See whether the new firmware works; on failure go back."""

    slot: int

    def __str__(self) -> str:
        return "check that the board answers, its version and a file there and back; if not, go back"


@dataclass(frozen=True)
class Confirm:
    """The image that runs stays."""

    slot: int

    def __str__(self) -> str:
        return f"confirm slot {self.slot}"


Step = GoBack | Upload | Trial | Reset | Health | Confirm


@dataclass(frozen=True)
class FirmwarePlan:
    """What will be done at ``address``; ``found`` is what is there before, ``hash`` the image that the board will run."""

    address: str
    info: Info
    found: tuple[Slot, ...]
    hash: bytes
    steps: tuple[Step, ...]

    @property
    def active(self) -> Slot:
        """What runs before."""
        return _active(self.found)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the words of a flash over SSH."""
        info = self.info
        board = {"port": info.port, "version": info.version, "architecture": info.architecture, "memory": info.memory}
        images = [asdict(slot) | {"hash": slot.hash.hex()} for slot in self.found]
        steps = [{"step": type(s).__name__.lower(), "text": str(s), "slot": s.slot} for s in self.steps]
        previous = next((slot.hash.hex() for slot in self.found if not slot.active), None)
        found = {"current": self.active.hash.hex(), "previous": previous, "slots": images}
        return {"address": self.address, "board": board, "release": self.hash.hex(), **found, "steps": steps}


def plan_firmware(
    link: SerialLink, deadline: Deadline, file: Path | None = None, building: Progress | None = None
) -> FirmwarePlan:
    """How the board gets this version's firmware, or the image in ``file``, which must be linked for the slot that does not run.

    Raises:
        UnsupportedError: edgekit has no firmware for the board, or its firmware has no slots.
        IntegrityError: the file is no image, or damaged.
        BuildError: the firmware cannot be compiled.
        LinkError: the board does not answer.
    """
    info, found = look(link, deadline)
    active = _active(found)
    if file is not None:
        with storage_errors(f"cannot read {file}"):
            image = read_image(file.read_bytes(), str(file))
        return FirmwarePlan(link.name, info, found, image.hash, _steps(found, image))
    target = info.port
    if target is None or target not in TARGETS:
        raise UnsupportedError(
            f"{link.name}: edgekit has no firmware for {target}", "--runner FILE brings one that was built elsewhere"
        )
    same = make_image(target, active.slot, building)
    if same.hash == active.hash:
        last: tuple[Step, ...] = () if active.confirmed else (Confirm(active.slot),)
        return FirmwarePlan(link.name, info, found, same.hash, (Health(active.slot), *last))
    image = same if not active.confirmed else make_image(target, 1 - active.slot, building)
    return FirmwarePlan(link.name, info, found, image.hash, _steps(found, image))


def plan_rollback_firmware(link: SerialLink, deadline: Deadline) -> FirmwarePlan:
    """How the board returns to the image in its other slot.

    Raises:
        InputError: there is none.
        UnsupportedError, LinkError: as ``plan_firmware`` does.
    """
    info, found = look(link, deadline)
    active = _active(found)
    other = next((slot for slot in found if not slot.active and slot.bootable), None)
    if other is None:
        raise InputError(
            f"{link.name}: there is no other firmware to go back to", "the board was flashed once, or an upload was cut"
        )
    if not active.confirmed:
        return FirmwarePlan(link.name, info, found, other.hash, (GoBack(other.slot), Health(other.slot)))
    return FirmwarePlan(link.name, info, found, other.hash, _switch(other.slot, other.hash))


def look(link: SerialLink, deadline: Deadline) -> tuple[Info, tuple[Slot, ...]]:
    """What the board is, and its slots."""
    info = Client(link).info()
    return info, tuple(slots(link.line, deadline))


def _active(found: tuple[Slot, ...]) -> Slot:
    active = next((slot for slot in found if slot.active), None)
    if active is None:
        raise DeviceError("the board does not say which slot it runs", "are edgekit and the firmware of one version?")
    return active


def _steps(found: tuple[Slot, ...], image: Image) -> tuple[Step, ...]:
    """The slot that can be written is the one that does not run; where what runs is on trial, it is that one, after a reset."""
    active = _active(found)
    slot = 1 - active.slot if active.confirmed else active.slot
    before: tuple[Step, ...] = () if active.confirmed else (GoBack(1 - slot),)
    there = any(s.slot == slot and s.hash == image.hash and s.bootable for s in found)
    upload: tuple[Step, ...] = () if there else (Upload(slot, image),)
    return (*before, *upload, *_switch(slot, image.hash))


def _switch(slot: int, image_hash: bytes) -> tuple[Step, ...]:
    return Trial(slot, image_hash), Reset(slot), Health(slot), Confirm(slot)
