"""The flash of a virtual microcontroller: a file that QEMU maps as the board's memory, so that firmware outlives the emulator."""

from __future__ import annotations

from pathlib import Path

from edgekit.files import write_atomic
from edgekit.mcuboot import Image, make_image

FLASH = "flash.img"
TARGET = "mps2-an500"
BASE, BYTES = 0x60000000, 16 << 20  #: the machine's PSRAM (firmware/ports/mps2_an500/memory.ld)


def make_flash(folder: Path) -> None:
    """Program the flash of a new board with this version's firmware in slot 0; one that has a flash keeps what is in it.

    Raises:
        BuildError: the firmware cannot be compiled.
        StorageError: the file cannot be written.
    """
    path = folder / FLASH
    if not path.exists():
        write_atomic(path, flash_with(make_image(TARGET, 0)), mode=0o600)


def flash_with(*images: Image) -> bytes:
    """An erased flash with images in their slots."""
    flash = bytearray(b"\xff") * BYTES
    for image in images:
        at = image.address - BASE
        flash[at : at + len(image.data)] = image.data
    return bytes(flash)
