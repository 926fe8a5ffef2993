"""Which libraries a program needs, read from real programs and from damaged ones."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from edgekit.errors import IntegrityError
from edgekit.virtual.elf import needed


def program() -> bytes:
    """This Python, or a shell where Python is static."""
    paths = (Path("/bin/sh"), Path(sys.executable).resolve())
    for path in paths:
        if path.exists() and path.read_bytes()[:6] == b"\x7fELF\x02\x01":
            return path.read_bytes()
    pytest.skip("no 64-bit little-endian ELF program here")


def test_a_dynamic_program_needs_the_c_library() -> None:
    assert any(name.startswith(("libc.", "ld-")) for name in needed(program()))


def test_a_file_of_another_kind_is_an_error() -> None:
    for data in (b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)):
        with pytest.raises(IntegrityError, match="ELF"):
            needed(data)


def test_a_cut_or_changed_program_is_an_error_or_an_answer() -> None:
    whole = program()
    for place in range(0, 4096, 3):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        for data in (whole[:place], bytes(changed)):
            with contextlib.suppress(IntegrityError):
                needed(data)
