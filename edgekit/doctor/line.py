"""Checks of the whole way to a board at a serial line."""

from __future__ import annotations

from edgekit.devices import full_address
from edgekit.doctor.check import Check
from edgekit.doctor.runner import activity, echo, train
from edgekit.errors import DeviceError, LinkError, UnsupportedError
from edgekit.links import Deadline
from edgekit.links.serial import Line, SerialLink
from edgekit.links.serial.address import parse
from edgekit.links.serial.images import Slot, slots
from edgekit.links.serial.port import open_port
from edgekit.protocol import PROTOCOL, Client
from edgekit.protocol.messages import Info

_SECONDS = 20.0  #: for the list of slots
_GOOD_STARTS = ("power-on", "reset on request")


class LineWay:
    """The way to a board over a serial line, as far as it is open: one method a check, each builds on those that it needs."""

    def __init__(self, address: str) -> None:
        self._given = address
        self._line: Line | None = None
        self._client: Client | None = None
        self._info: Info | None = None

    def checks(self) -> tuple[Check, ...]:
        return (
            Check("address", self._address),
            Check("port", self._port, ("address",)),
            Check("frames", self._frames, ("port",)),
            Check("firmware", self._firmware, ("frames",)),
            Check("last start", self._last_start, ("firmware",)),
            Check("image slots", self._slots, ("firmware",)),
            Check("memory", self._memory, ("firmware",)),
            Check("training step", self._train, ("firmware",)),
        )

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    def _address(self) -> str:
        return parse(full_address(self._given)).text

    def _port(self) -> str:
        self._line = Line(open_port(parse(full_address(self._given))))
        return "open"

    def _frames(self) -> str:
        assert self._line is not None
        if not self._line.greet():
            raise LinkError(
                f"{self._line.name}: nothing at the other end knows edgekit's frames",
                "does another program use the line? are port and rate (?baud=N) right? `edgekit monitor` shows what it says",
            )
        return f"COBS, messages of {self._line.most} bytes, a window of {self._line.window}, {self._line.baud} baud"

    def _firmware(self) -> str:
        assert self._line is not None
        self._client = client = Client(SerialLink(self._line, for_now=True))
        self._info = info = client.info()
        if info.protocol != PROTOCOL:
            raise LinkError(
                f"{self._line.name}: the firmware speaks protocol {info.protocol}, edgekit {PROTOCOL}",
                f"`edgekit flash {self._given}` brings the firmware that fits",
            )
        milliseconds = echo(client)
        return f"{info.version}, echo in {milliseconds:.1f} ms, protocol {info.protocol}, {info.isa}, {activity(client)}"

    def _last_start(self) -> str:
        assert self._info is not None
        if self._info.reset is not None and not self._info.reset.startswith(_GOOD_STARTS):
            raise DeviceError(
                f"the board started after a failure: {self._info.reset}",
                "report this, with the firmware's version and the program",
            )
        return self._info.reset or "unknown"

    def _slots(self) -> str:
        assert self._line is not None
        try:
            found = slots(self._line, Deadline.after(_SECONDS))
        except UnsupportedError:
            return "none: this firmware comes and goes by the board's own programmer"
        for slot in found:
            if slot.active and not slot.confirmed:
                raise DeviceError(
                    f"the firmware in slot {slot.slot} is on trial: the next start runs the other one",
                    f"`edgekit flash {self._given}` checks and confirms it or brings this version's; --rollback goes back",
                )
        return "; ".join(f"{slot.slot}: {slot.version}{_state(slot)}" for slot in found)

    def _memory(self) -> str:
        assert self._info is not None
        stack = "unknown" if self._info.stack is None else f"{self._info.stack} bytes"
        free = "unknown" if self._info.disk is None else f"{self._info.disk / 1024:.0f} KiB"
        return f"{free} of {self._info.memory / 1024:.0f} KiB for programs and data; most of the stack in use so far: {stack}"

    def _train(self) -> str:
        assert self._client is not None
        return train(self._client, self._given)


def _state(slot: Slot) -> str:
    if slot.active:
        return ", runs"
    return "" if slot.bootable else ", not whole"
