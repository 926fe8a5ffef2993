"""Firmware images of microcontrollers in MCUboot's format: made from an ELF file, signed, read (docs/microcontrollers.md)."""

from edgekit.mcuboot.image import Image, read_image, sign_image
from edgekit.mcuboot.keys import public_bytes, signing_key
from edgekit.mcuboot.make import make_bootloader, make_image

__all__ = ["Image", "make_bootloader", "make_image", "public_bytes", "read_image", "sign_image", "signing_key"]
