"""The bootloader and the firmware of a board, built and signed with the user's key."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from edgekit.firmware.build import IMAGE_HEADER, Progress, build
from edgekit.mcuboot.elf import flat
from edgekit.mcuboot.image import Image, Version, sign_image
from edgekit.mcuboot.keys import public_bytes, signing_key


def make_bootloader(target: str, progress: Progress | None = None) -> Path:
    """The bootloader's ELF file for a build target; it takes images that the user's key has signed.

    Raises:
        BuildError: the compiler failed.
        InputError: the target is unknown, or the key's file holds none.
    """
    path: Path = build("bootloader", target, progress, key=public_bytes(signing_key()))
    return path


def make_image(target: str, slot: int, progress: Progress | None = None) -> Image:
    """The firmware for a build target, linked for a slot (0 or 1) and signed.

    Raises: as ``make_bootloader`` does.
    """
    key = signing_key()
    address, program = flat(build("firmware", target, progress, slot=slot, key=public_bytes(key)).read_bytes())
    return sign_image(program, IMAGE_HEADER, address, release_version(), key)


def release_version() -> Version:
    """Edgekit's own version, as images have it."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version("edgekit"))
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3] or 0), 0
