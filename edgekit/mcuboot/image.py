"""MCUboot's image format (docs.mcuboot.com/design.html): a header, the program, and a trailer of tagged values.

An image is linked for its slot, and says so (flag ROM_FIXED). The trailer holds the SHA-256 of header and program, that of the
public key, and the Ed25519 signature of the first of them, as ``imgtool sign`` writes them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgekit.errors import IntegrityError

Version = tuple[int, int, int, int]  #: major, minor, revision, build

_HEADER = struct.Struct("<IIHHIIBBHI4x")
_TRAILER = struct.Struct("<HH")
_VALUE = struct.Struct("<HH")
_MAGIC, _TRAILER_MAGIC, _ROM_FIXED = 0x96F3B83D, 0x6907, 0x100
_KEY_HASH, _SHA256, _ED25519 = 0x01, 0x10, 0x24
_LENGTHS = {_KEY_HASH: 32, _SHA256: 32, _ED25519: 64}
#: Bytes of the trailer of an image that is signed here.
TRAILER_BYTES = _TRAILER.size + sum(_VALUE.size + length for length in _LENGTHS.values())


@dataclass(frozen=True)
class Image:
    """A whole image. ``address`` is its slot's; ``hash`` is what boards name it by; ``data`` is all of it."""

    data: bytes
    address: int
    version: Version
    hash: bytes
    key_hash: bytes
    signature: bytes

    @property
    def release(self) -> str:
        """Its version for people."""
        *version, build = self.version
        return ".".join(map(str, version)) + (f".{build}" if build else "")

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether the owner of a key has signed it."""
        try:
            key.verify(self.signature, self.hash)
        except InvalidSignature:
            return False
        return self.key_hash == _hash_key(key)


def sign_image(program: bytes, header_bytes: int, address: int, version: Version, key: Ed25519PrivateKey) -> Image:
    """An image of a program whose first ``header_bytes`` bytes are for the header, linked for the slot at ``address``."""
    size = len(program) - header_bytes
    header = _HEADER.pack(_MAGIC, address, header_bytes, 0, size, _ROM_FIXED, *version)
    body = header.ljust(header_bytes, b"\xff") + program[header_bytes:]
    digest, key_hash = hashlib.sha256(body).digest(), _hash_key(key.public_key())
    values = {_SHA256: digest, _KEY_HASH: key_hash, _ED25519: key.sign(digest)}
    trailer = b"".join(_VALUE.pack(kind, len(value)) + value for kind, value in values.items())
    data = body + _TRAILER.pack(_TRAILER_MAGIC, _TRAILER.size + len(trailer)) + trailer
    return Image(data, address, version, digest, key_hash, values[_ED25519])


def read_image(data: bytes, name: str) -> Image:
    """An image as a file has it; ``name`` is the file's, for errors.

    Raises:
        IntegrityError: it is no image, is damaged, or not one that edgekit's bootloader takes.
    """
    try:
        magic, address, header, protected, size, flags, *version = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise IntegrityError(f"{name} is no MCUboot image", "`imgtool sign` makes one; docs/microcontrollers.md")
        if flags != _ROM_FIXED or protected:
            raise IntegrityError(
                f"{name} is not linked for one slot", "`imgtool sign --rom-fixed ADDRESS`; docs/microcontrollers.md"
            )
        values = _read_trailer(data, header + size)
    except (struct.error, ValueError) as error:
        raise IntegrityError(f"{name} is a damaged MCUboot image: {error}", "make it anew") from error
    digest = hashlib.sha256(data[: header + size]).digest()
    if digest != values[_SHA256]:
        raise IntegrityError(f"{name} is a damaged MCUboot image: its SHA-256 is another one", "make it anew")
    major, minor, revision, build = version
    return Image(data, address, (major, minor, revision, build), digest, values[_KEY_HASH], values[_ED25519])


def _read_trailer(data: bytes, at: int) -> dict[int, bytes]:
    magic, total = _TRAILER.unpack_from(data, at)
    end = at + total
    if magic != _TRAILER_MAGIC or end > len(data):
        raise ValueError("it is cut")
    values: dict[int, bytes] = {}
    at += _TRAILER.size
    while at < end:
        kind, length = _VALUE.unpack_from(data, at)
        values[kind] = data[at + _VALUE.size : at + _VALUE.size + length]
        at += _VALUE.size + length
    for kind, length in _LENGTHS.items():
        if len(values.get(kind, b"")) != length:
            raise ValueError("hash, key hash or Ed25519 signature is missing")
    return values


def _hash_key(key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)).digest()
