"""What a virtual board is made with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.board import load_board
from edgekit.errors import InputError

MACHINE = "virtual-pi-4"  #: a machine, and the id of its profile in boards/
M7 = "virtual-m7"  #: a microcontroller
MACHINES = (MACHINE, M7)
MIB = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # a host name, as Linux and TOML's bare keys take it
_LEAST_MEMORY = 128 * MIB  # below it the kernel has no room to unpack the root file system
_LEAST_DISK = 8 * MIB


@dataclass(frozen=True)
class Settings:
    """One virtual board.

    Attributes:
        name: of the board, of its folder and of the device.
        cpus: emulated Cortex-A72 cores.
        memory: bytes, whole MiB.
        disk: bytes of the home file system; only a board that is new takes it.
        icount: the guest's clock counts instructions (1 ns each), on one core.
        port: on 127.0.0.1; None: the one it had before, or a free one.
        machine: which of MACHINES. A microcontroller has one core, its profile's memory and no disk.

    Raises:
        InputError: a setting that no board can have.
    """

    name: str = MACHINE
    cpus: int = 2
    memory: int = 512 * MIB
    disk: int = 2048 * MIB
    icount: bool = False
    port: int | None = None
    machine: str = MACHINE

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} cannot name a virtual board", "use up to 63 of a-z, 0-9 and -, not beginning with -")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InputError(f"{self.port} is no TCP port", "1024 to 65535, or leave it out")
        if self.machine == MACHINE:
            self._check_linux()

    def _check_linux(self) -> None:
        if self.icount and self.cpus != 1:
            raise InputError(f"--icount counts the instructions of one core, not of {self.cpus}", "leave out --cpus")
        if not 1 <= self.cpus <= 8:
            raise InputError(f"a virtual board has 1 to 8 cores, not {self.cpus}")
        if self.memory < _LEAST_MEMORY or self.memory % MIB:
            raise InputError(f"a virtual board needs {_LEAST_MEMORY // MIB} MiB of memory or more, in whole MiB")
        if self.disk < _LEAST_DISK:
            raise InputError(f"a virtual board needs a disk of {_LEAST_DISK // MIB} MiB or more")

    @classmethod
    def from_profile(
        cls,
        name: str = MACHINE,
        cpus: int | None = None,
        memory: int | None = None,
        disk: int | None = None,
        icount: bool = False,
        port: int | None = None,
        machine: str = MACHINE,
    ) -> Settings:
        """Settings with the profile's cores and memory (one core where instructions are counted) where none are given."""
        profile = load_board(machine)
        if machine == M7:
            if (cpus, memory, disk) != (None, None, None):
                raise InputError(f"{M7} has one core, its memory and no disk", "leave out --cpus, --memory and --disk")
            return cls(name, 1, profile.memory or 0, 0, icount, port, machine)
        return cls(
            name=name,
            cpus=cpus if cpus is not None else 1 if icount else profile.cores or cls.cpus,
            memory=memory if memory is not None else profile.memory or cls.memory,
            disk=disk if disk is not None else cls.disk,
            icount=icount,
            port=port,
        )
