"""Boards without hardware: QEMU machines that edgekit builds and boots, then devices like any other (docs/virtual-boards.md)."""

from edgekit.virtual.errors import VirtualBoardError
from edgekit.virtual.lifecycle import delete, start, stop
from edgekit.virtual.progress import Progress, Step
from edgekit.virtual.registry import VirtualBoard, virtual_boards
from edgekit.virtual.settings import M7, MACHINE, MACHINES, Settings

__all__ = [
    "M7",
    "MACHINE",
    "MACHINES",
    "Progress",
    "Settings",
    "Step",
    "VirtualBoard",
    "VirtualBoardError",
    "delete",
    "start",
    "stop",
    "virtual_boards",
]
