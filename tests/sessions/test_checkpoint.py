"""Checkpoint files: read as specified, refused when damaged or another program's."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import InputError, IntegrityError
from edgekit.sessions import read_checkpoint
from tests.runner.programs import Classifier

PROGRAM = Classifier().program()


def checkpoint() -> bytes:
    """A checkpoint of PROGRAM, word by word from docs/protocol.md."""
    region = bytearray(PROGRAM.header.state_bytes)
    weight = np.arange(12, dtype="<f4").tobytes()
    at = PROGRAM.tensor("w").offset
    region[at : at + len(weight)] = weight
    body = PROGRAM.sha256 + struct.pack("<QQIIQ8x", 42, 7, 3, 5, len(region)) + bytes(region)
    head = b"\x89EKC\r\n\x1a\n" + struct.pack("<IIQ", 1, 0, 56 + len(body))
    return head + hashlib.sha256(body).digest() + body


def test_a_checkpoint_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ekc"
    path.write_bytes(checkpoint())
    found = read_checkpoint(path)
    assert (found.program, found.step, found.seed, found.epoch, found.batches) == (PROGRAM.sha256, 42, 7, 3, 5)
    state = found.state(PROGRAM)
    assert (state["w"] == np.arange(12, dtype=np.float32).reshape(3, 4)).all()
    assert set(state) == {t.name for t in PROGRAM.states}


def test_every_cut_and_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.ekc"
    whole = checkpoint()
    for end in range(0, len(whole), 5):
        path.write_bytes(whole[:end])
        with pytest.raises(IntegrityError, match=r"a\.ekc"):
            read_checkpoint(path)
    for at in range(len(whole)):
        if 12 <= at < 16:  # reserved
            continue
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(IntegrityError, match=r"a\.ekc"):
            read_checkpoint(path)


def test_another_programs_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ekc"
    path.write_bytes(checkpoint())
    with pytest.raises(IntegrityError, match="belongs to the program"):
        read_checkpoint(path).state(Classifier(lr=0.2).program())


def test_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_checkpoint(tmp_path / "none.ekc")
