"""Firmware images: as MCUboot's own tool makes and reads them; keys; what an ELF file loads."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.errors import InputError, IntegrityError
from edgekit.mcuboot import public_bytes, read_image, sign_image, signing_key
from edgekit.mcuboot.elf import flat
from edgekit.mcuboot.image import TRAILER_BYTES
from edgekit.mcuboot.keys import key_file, read_key
from tests.virtual.conftest import config  # noqa: F401

pytestmark = pytest.mark.usefixtures("config")
HEADER, ADDRESS = 512, 0x60100000
PROGRAM = bytes(HEADER) + bytes(range(256)) * 9


def imgtool(*words: str | Path) -> str:
    code = "import sys; from imgtool.main import imgtool; imgtool()"
    done = subprocess.run((sys.executable, "-c", code, *map(str, words)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_what_imgtool_makes(tmp_path: Path) -> None:
    """To the last byte."""
    key = signing_key()
    (tmp_path / "in.bin").write_bytes(PROGRAM[HEADER:])
    place = ("--header-size", str(HEADER), "--pad-header", "--slot-size", "0x10000", "--align", "1", "--rom-fixed", hex(ADDRESS))
    imgtool("sign", "--key", key_file(), *place, "--version", "1.2.3+4", tmp_path / "in.bin", tmp_path / "out.bin")
    theirs = read_image((tmp_path / "out.bin").read_bytes(), "out.bin")
    ours = sign_image(PROGRAM, HEADER, ADDRESS, (1, 2, 3, 4), key)
    assert theirs.is_signed_by(key.public_key())
    assert theirs == ours
    assert theirs.release == "1.2.3.4"


def test_imgtool_verifies_it(tmp_path: Path) -> None:
    signing_key()
    (tmp_path / "ours.bin").write_bytes(sign_image(PROGRAM, HEADER, ADDRESS, (1, 2, 3, 0), signing_key()).data)
    assert "correctly validated" in imgtool("verify", "--key", key_file(), tmp_path / "ours.bin")


def test_an_image_is_read_back_and_a_damaged_one_is_not() -> None:
    key = Ed25519PrivateKey.generate()
    image = sign_image(PROGRAM, HEADER, ADDRESS, (0, 1, 0, 0), key)
    assert read_image(image.data, "x") == image
    assert len(image.data) == len(PROGRAM) + TRAILER_BYTES
    assert not image.is_signed_by(Ed25519PrivateKey.generate().public_key())
    for place in (0, 4, 12, 16, 600, len(PROGRAM) + 1, len(PROGRAM) + 4):
        changed = bytearray(image.data)
        changed[place] ^= 1
        with pytest.raises(IntegrityError):
            read_image(bytes(changed), "x")
    for size in (0, 10, 32, 600, len(image.data) - 1):
        with pytest.raises(IntegrityError):
            read_image(image.data[:size], "x")


def test_the_key_is_made_once_and_is_the_users_alone() -> None:
    first = public_bytes(signing_key())
    assert public_bytes(signing_key()) == first
    assert key_file().stat().st_mode & 0o777 == 0o600
    assert len(first) == 32


def test_other_files_are_no_keys(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(os.urandom(100))
    with pytest.raises(InputError, match="no private key"):
        read_key(tmp_path / "none")


def elf(*segments: tuple[int, int, bytes]) -> bytes:
    """An ELF file of (kind, address, bytes)."""
    place = 52 + 32 * len(segments)
    head = b"\x7fELF\x01\x01" + bytes(22) + struct.pack("<I", 52) + bytes(10) + struct.pack("<HH", 32, len(segments)) + bytes(6)
    rows, contents = b"", b""
    for kind, address, content in segments:
        rows += struct.pack("<IIIIII8x", kind, place + len(contents), address + 0x1000, address, len(content), 99)
        contents += content
    return head + rows + contents


def test_what_an_elf_file_loads() -> None:
    assert flat(elf((1, 0x100, b"abc"), (6, 0, b"not loaded"), (1, 0x105, b"de"), (1, 0x200, b""))) == (0x100, b"abc\0\0de")
    for bad in (b"", b"\x7fELF\x02\x01" + bytes(60), elf((1, 0x100, b""))):
        with pytest.raises(IntegrityError):
            flat(bad)
