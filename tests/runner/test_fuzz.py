"""The fuzz targets of the runner's parsers run for a moment, from the golden messages and from NumPy's own files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from smp.file_management import FileDownloadRequest, FileHashChecksumRequest, FileUploadRequest
from smp.image_management import ImageEraseRequest, ImageStatesReadRequest, ImageStatesWriteRequest, ImageUploadWriteRequest

from edgekit.links.serial.framing import Kind, encode_cobs, encode_console
from edgekit.mcuboot import sign_image
from edgekit.protocol.messages import Window
from edgekit.sessions.data import check_data
from edgekit.sessions.shards import Shards
from tests.runner.make_golden import vectors
from tests.runner.programs import Classifier, sample_data
from tests.support.fuzzing import fuzz

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")


def test_messages(tmp_path: Path) -> None:
    for i, vector in enumerate(vectors()):
        (tmp_path / str(i)).write_bytes(bytes([i]) + bytes.fromhex(vector.request))
    fuzz("fuzz_smp", tmp_path, max_len=4096)


def test_serial_lines(tmp_path: Path) -> None:
    """Both framings as they are, and behind the mark messages that the target wraps itself: of every command, file and image."""
    requests = [bytes.fromhex(vector.request) for vector in vectors()]
    upload = FileUploadRequest(off=0, data=bytes(200), name="file", len=200, sequence=1)
    requests += [bytes(upload), bytes(FileDownloadRequest(off=3, name="file")), bytes(FileHashChecksumRequest(name="file"))]
    requests += [bytes(FileUploadRequest(off=0, data=bytes(300), name="model.ekp", len=300, sequence=2))]
    slot = 0x60000000 + 2 * 4096 + 4096  # tools/ram_flash.h
    image = sign_image(bytes(512) + bytes(100), 512, slot, (1, 2, 3, 4), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    first, rest = image.data[:600], image.data[600:]
    requests += [bytes(ImageUploadWriteRequest(off=0, data=first, len=len(image.data), sha=hashlib.sha256(image.data).digest()))]
    requests += [bytes(ImageUploadWriteRequest(off=600, data=rest)), bytes(ImageStatesReadRequest()), bytes(ImageEraseRequest())]
    requests += [bytes(ImageStatesWriteRequest(hash=image.hash)), bytes(ImageStatesWriteRequest(confirm=True))]
    for i, request in enumerate(requests):
        (tmp_path / f"console-{i}").write_bytes(encode_console(request))
        (tmp_path / f"cobs-{i}").write_bytes(b"noise" + encode_cobs(Kind.MESSAGE, request))
    for kind in Kind:
        pieces = (len(r).to_bytes(2, "little") + bytes([kind]) + r for r in (b"\1\2\3\4", *requests) if len(r) < 2048)
        (tmp_path / f"wrapped-{kind}").write_bytes(b"\xff\0" + b"".join(pieces))
    fuzz("fuzz_serial", tmp_path, max_len=8192)


def test_shards(tmp_path: Path) -> None:
    inputs, targets = sample_data(8)
    program = Classifier().program()
    shards = Shards(check_data({"inputs": inputs, "targets": targets}, program, "train_step"), program, "train_step")
    numbers = {"first": 0, "wanted": 0, "until": 2, "total": 2, "steps": 1, "samples": 8, "limit": 8, "seed": 0}
    window = Window(**numbers, shuffle=False, digest=bytes(32), folder="/spool")
    shard = shards.build(window, 0)
    for i, changed in enumerate((shard, shard[:-9], shard[:192])):
        (tmp_path / str(i)).write_bytes(changed[:16] + bytes(32) + changed[48:])  # the target's data set has no digest
    fuzz("fuzz_shard", tmp_path, max_len=1024)


def test_npy(tmp_path: Path) -> None:
    for i, array in enumerate((np.zeros((2, 3), np.float32), np.zeros(4, np.int64), np.zeros((0, 7), np.uint8), np.float64(1))):
        np.save(tmp_path / str(i), array)
    fuzz("fuzz_npy", tmp_path, max_len=400)
