"""Brings firmware to a microcontroller over its line. Whatever happens on the way, the board runs the old image or the new one:
it decides by itself, and goes back at its next start, or after ten minutes, where nobody confirms."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.errors import BusyError, DeviceError, EdgekitError, LinkError, LinkLost
from edgekit.links.deadline import Deadline
from edgekit.links.progress import Moved
from edgekit.links.serial import SerialLink
from edgekit.links.serial.files import digest, download, upload
from edgekit.links.serial.images import confirm_image, slots, try_image, upload_image
from edgekit.protocol import PROTOCOL, Client
from edgekit.protocol.messages import Info
from edgekit.sessions.firmware_plan import Confirm, FirmwarePlan, GoBack, Health, Reset, Step, Trial, Upload
from edgekit.sessions.flash import FlashFailed
from edgekit.sessions.flash_events import Done, Event, GoesOn, Started

log = logging.getLogger("edgekit")

UPLOAD_SECONDS = 1200.0  #: half a megabyte at 115200 baud takes 50
STEP_SECONDS = 60.0  #: a board that verifies, or erases flash, takes some seconds
START_SECONDS = 60.0
_UPLOADS = 5  #: times that a line may be lost in an upload
_POLL = 0.3
_CHECK_BYTES = 4096

#: Opens the line to the board anew.
Open = Callable[[], SerialLink]


@dataclass(frozen=True)
class FirmwareFlashed:
    """What the board has now; ``info`` is what its firmware says of itself."""

    address: str
    release: str
    previous: str | None
    slot: int
    info: Info


def execute_firmware(
    open_line: Open, plan: FirmwarePlan, *, force: bool = False, listen: Callable[[Event], None] | None = None
) -> FirmwareFlashed:
    """Carry out a plan, step by step. Cut at any point, it can be begun again with a new plan.

    Args:
        open_line: opens the line; it is closed here, and opened again after each reset.
        force: end a session that runs on the board.
        listen: told of every step and of the bytes that move.

    Raises:
        BusyError: a session runs; the board still runs what it ran.
        FlashFailed: the new firmware does not work; the old one is back.
        IntegrityError: the board does not accept the image's signature.
        LinkError: the board is gone.
    """
    work = _Work(open_line, plan, force, listen or (lambda _: None))
    try:
        for number, step in enumerate(plan.steps, 1):
            work.listen(Started(step, number, len(plan.steps)))
            work.listen(Done(step, work.do(step)))
    finally:
        work.link.close()
    before = plan.active
    previous = None if before.hash == plan.hash else before.hash.hex()
    assert work.info is not None
    return FirmwareFlashed(plan.address, plan.hash.hex(), previous, plan.steps[-1].slot, work.info)


class _Work:
    """One method a kind of step; each returns what it found."""

    def __init__(self, open_line: Open, plan: FirmwarePlan, force: bool, listen: Callable[[Event], None]) -> None:
        self.open_line = open_line
        self.plan = plan
        self.force = force
        self.listen = listen
        self.info: Info | None = None
        self.link = open_line()

    def do(self, step: Step) -> str:
        match step:
            case GoBack():
                return self._go_back(step)
            case Upload():
                return self._upload(step)
            case Trial():
                try_image(self.link.line, step.hash, Deadline.after(STEP_SECONDS))
                return "the same, and signed"
            case Reset():
                return self._reset(step)
            case Health():
                return self._health(step)
            case Confirm():
                confirm_image(self.link.line, Deadline.after(STEP_SECONDS))
                return ""

    def _upload(self, step: Upload) -> str:
        """A line that is lost is opened again."""
        data, deadline = step.image.data, Deadline.after(UPLOAD_SECONDS)
        for attempt in range(_UPLOADS):
            try:
                self._upload_rest(data, deadline)
                break
            except LinkLost as error:
                if attempt == _UPLOADS - 1:
                    raise
                log.warning("%s; trying again", error.message)
                self._open_again(Deadline.after(START_SECONDS))
        return f"{len(data)} bytes"

    def _upload_rest(self, data: bytes, deadline: Deadline) -> None:
        """What an earlier try left goes on."""
        begun = False
        for there in upload_image(self.link.line, data, deadline):
            if not begun and there > self.link.line.most:
                self.listen(GoesOn(there, len(data)))
            begun = True
            self.listen(Moved("firmware", there, len(data)))

    def _go_back(self, step: GoBack) -> str:
        info = self._restart(self.force)
        self._expect(step.slot, info)
        return f"slot {step.slot}"

    def _reset(self, step: Reset) -> str:
        info = self._restart(self.force)
        self._expect(step.slot, info)
        return f"slot {step.slot}, {info.reset}"

    def _expect(self, slot: int, info: Info) -> None:
        """The slot that is meant runs; another one runs where the new firmware ended before it could answer."""
        active = next(s for s in slots(self.link.line, Deadline.after(STEP_SECONDS)) if s.active)
        if active.slot != slot:
            raise FlashFailed(
                f"{self.link.name}: the new firmware did not stay up ({info.reset}); the board is back on {active.version} "
                f"in slot {active.slot}",
                "`edgekit monitor` shows what the board says while it starts",
            )

    def _restart(self, force: bool) -> Info:
        """Reset the board, and talk to it again."""
        name = self.link.name
        try:
            before = Client(self.link).info().instance
            Client(self.link).reset(force)
        except BusyError as error:
            raise BusyError(
                f"{name}: a session runs on the board, and flashing would end it",
                f"wait for its end, or stop it: `edgekit flash {name} --force` does",
            ) from error
        deadline = Deadline.after(START_SECONDS)
        while (info := self._open_again(deadline)).instance == before:
            pass
        return info

    def _open_again(self, deadline: Deadline) -> Info:
        """Another line in place of the one that is lost; what the board is."""
        last = LinkLost(f"{self.link.name}: the board does not answer", "is it powered?")
        while deadline.remaining():
            self.link.close()
            time.sleep(_POLL)
            try:
                self.link = self.open_line()
                return Client(self.link).info()
            except LinkError as error:
                last = error if isinstance(error, LinkLost) else LinkLost(error.message, error.hint)
        raise last

    def _health(self, step: Health) -> str:
        try:
            self.info = _examine(self.link, step.slot)
        except (EdgekitError, TimeoutError) as error:
            why = getattr(error, "message", error)
            if all(not isinstance(other, Confirm) for other in self.plan.steps):
                raise
            try:
                self._restart(True)
                back = next(s for s in slots(self.link.line, Deadline.after(STEP_SECONDS)) if s.active)
            except EdgekitError as lost:
                raise LinkLost(
                    f"{self.link.name}: the new firmware does not work ({why}), and the board does not answer a reset",
                    "it goes back by itself at its next start, at the latest ten minutes after the last one",
                ) from lost
            raise FlashFailed(
                f"{self.link.name}: the new firmware does not work ({why}); the board is back on {back.version} "
                f"in slot {back.slot}",
                "`edgekit doctor` looks at the board",
            ) from error
        return f"{self.info.version}, {self.info.architecture}, {self.info.isa}, slot {step.slot}"


def _examine(link: SerialLink, slot: int) -> Info:
    """Whether firmware works: echo, protocol, its slot, and a file there and back.

    Raises:
        DeviceError: something is wrong.
        LinkError: the board does not answer.
    """
    client = Client(link)
    said = os.urandom(64).hex()
    if client.echo(said) != said:
        raise DeviceError("an echo came back changed")
    info = client.info()
    if info.protocol != PROTOCOL:
        raise DeviceError(f"the firmware speaks protocol {info.protocol}, edgekit {PROTOCOL}")
    deadline = Deadline.after(STEP_SECONDS)
    active = next(s for s in slots(link.line, deadline) if s.active)
    if active.slot != slot:
        raise DeviceError(f"the board runs slot {active.slot}")
    content, name = os.urandom(_CHECK_BYTES), "flash-check"
    for _ in upload(link.line, name, content, deadline):
        pass
    if download(link.line, name, deadline, lambda _: None) != content or digest(link.line, name, deadline) is None:
        raise DeviceError("a file came back changed")
    return info
