"""What goes wrong before a virtual board is there. Once it is, it fails like any board: with a DeviceError."""

from edgekit.errors import EdgekitError


class VirtualBoardError(EdgekitError):
    """A virtual board cannot be built or started: a tool is missing, a package cannot be fetched, QEMU refuses."""
