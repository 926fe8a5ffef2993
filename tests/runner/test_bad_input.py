"""Programs, data sets, checkpoints and disks that do not work: an error that says which and why, and nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.program import Architecture, Backend
from edgekit.protocol.status import Status
from tests.runner.make_golden import LOAD, SAVE, START, STATUS
from tests.runner.process import Runner
from tests.runner.programs import FEATURES, Classifier, sample_data, write_data

TRAIN = {"kind": "train", "epochs": 1, "shuffle": False, "seed": 0}


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*.tmp")]


def start_fails(runner: Runner, status: Status, data: Path | str, **request: Any) -> str:
    return runner.fails(status, START, **({**TRAIN, "data": str(data)} | request))


# ---- programs ----


def test_programs_that_are_none(runner: Runner, model: str, tmp_path: Path) -> None:
    data = Path(model).read_bytes()
    cut = tmp_path / "cut.ekp"
    for size in (0, 1, 191, 192, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:size])
        assert runner.fails(Status.BAD_DIGEST if size >= 8 else Status.BAD_PROGRAM, LOAD, path=str(cut))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    cut.write_bytes(flipped)
    runner.fails(Status.BAD_DIGEST, LOAD, path=str(cut))
    assert str(tmp_path / "none") in runner.fails(Status.NOT_FOUND, LOAD, path=str(tmp_path / "none"))
    assert "no regular file" in runner.fails(Status.IO, LOAD, path=str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    runner.fails(Status.IO, LOAD, path=str(tmp_path / "fifo"))


def test_another_boards_program(runner: Runner, tmp_path: Path) -> None:
    path = tmp_path / "m.ekp"
    Classifier().program(architecture=Architecture.ARMV7EM).save(path)
    assert "armv7e-m" in runner.fails(Status.WRONG_BOARD, LOAD, path=str(path))
    Classifier().program(backend=Backend.TORCH).save(path)
    assert "torch" in runner.fails(Status.WRONG_BOARD, LOAD, path=str(path))


# ---- data sets ----


def test_files_that_are_missing(loaded: Runner, tmp_path: Path) -> None:
    assert "inputs.npy" in start_fails(loaded, Status.NOT_FOUND, tmp_path / "none")
    write_data(tmp_path / "data", sample_data(8)[0])
    assert "targets.npy" in start_fails(loaded, Status.NOT_FOUND, tmp_path / "data")


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        (np.zeros((8, 5), np.float32), "expected f4, f8 or u1 [samples, 3], found f4[8, 5]"),
        (np.zeros((8, 3, 1), np.float32), "found f4[8, 3, 1]"),
        (np.zeros(8, np.float32), "found f4[8]"),
        (np.float32(3), "found f4[]"),
        (np.zeros((8, 3), np.int64), "found i8[8, 3]"),
        (np.zeros((8, 3), ">f4"), "big-endian"),
        (np.zeros((8, 3), np.complex64), "dtype <c8"),
        (np.zeros((8, 3), np.float16), "dtype <f2"),
        (np.asfortranarray(np.zeros((8, 3), np.float32)), "Fortran"),
        (np.zeros((9, 3), np.float32), "targets.npy has 8 samples, inputs.npy has 9"),
    ],
)
def test_inputs_that_do_not_fit(loaded: Runner, tmp_path: Path, inputs: np.ndarray, why: str) -> None:
    write_data(tmp_path / "data", inputs, sample_data(8)[1])
    assert why in start_fails(loaded, Status.BAD_DATA, tmp_path / "data")
    assert "npy" in start_fails(loaded, Status.BAD_DATA, tmp_path / "data")


@pytest.mark.parametrize("targets", [np.zeros((8, 1), np.int64), np.zeros(8, np.float32), np.zeros(8, np.uint32)])
def test_targets_that_do_not_fit(loaded: Runner, tmp_path: Path, targets: np.ndarray) -> None:
    write_data(tmp_path / "data", sample_data(8)[0], targets)
    assert "targets.npy" in start_fails(loaded, Status.BAD_DATA, tmp_path / "data")


def npy(header: bytes, data: bytes = bytes(96), version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + data


GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (8, 3), }\n"


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
def test_every_version_of_npy(loaded: Runner, tmp_path: Path, version: bytes) -> None:
    data = write_data(tmp_path / "data", *sample_data(8))
    (tmp_path / "data" / "inputs.npy").write_bytes(npy(GOOD, version=version))
    loaded.session("evaluate", data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(GOOD)[:9],
        npy(GOOD)[:40],
        npy(GOOD)[:-1],
        npy(GOOD, bytes(97)),
        b"\x93NUMPX" + npy(GOOD)[6:],
        npy(GOOD, version=b"\x04\x00"),
        npy(GOOD, version=b"\x01\x01"),
        npy(GOOD, version=b"\x02\x00")[:11],
        npy(b""),
        npy(b"{}\n"),
        npy(b"[" + GOOD[1:]),
        npy(GOOD.replace(b"(8, 3)", b"(8, 3")),
        npy(GOOD.replace(b"(8, 3)", b"(8 3)")),
        npy(GOOD.replace(b"(8, 3)", b"(-8, 3)")),
        npy(GOOD.replace(b"(8, 3)", b"(8L, 3)")),
        npy(GOOD.replace(b"(8, 3)", b"(18446744073709551616, 3)")),
        npy(GOOD.replace(b"(8, 3)", b"(4611686018427387904, 3)")),
        npy(GOOD.replace(b"(8, 3)", b"(8, 3, 1, 1, 1, 1, 1, 1, 1)")),
        npy(GOOD.replace(b"(8, 3)", b"(4294967296, 3)")),
        npy(GOOD.replace(b"False", b"Maybe")),
        npy(GOOD.replace(b"'descr'", b"'descr\\x41'")),
        npy(GOOD.replace(b"}", b"} extra")),
        npy(GOOD.replace(b"'shape'", b"'shapes'")),
        npy(GOOD.replace(b", }", b", 'descr': '<f4'}")),
        npy(GOOD.replace(b"'<f4'", b"[('a', '<f4')]")),
        npy(GOOD.replace(b"'<f4'", b"'" + b"<" * 40 + b"f4'")),
    ],
)
def test_npy_files_that_are_none(loaded: Runner, tmp_path: Path, content: bytes) -> None:
    write_data(tmp_path / "data", *sample_data(8))
    (tmp_path / "data" / "inputs.npy").write_bytes(content)
    assert start_fails(loaded, Status.BAD_DATA, tmp_path / "data").startswith("inputs.npy ")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_every_dtype_of_inputs_gives_the_same(loaded: Runner, tmp_path: Path, dtype: type) -> None:
    inputs = np.arange(24).reshape(8, FEATURES)
    targets = np.arange(8) % 4
    expected = loaded.session("evaluate", write_data(tmp_path / "a", inputs.astype(np.float32), targets)) and loaded.metrics()
    loaded.session("evaluate", write_data(tmp_path / "b", inputs.astype(dtype), targets))
    assert loaded.metrics() == expected


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8])
def test_every_dtype_of_targets_gives_the_same(loaded: Runner, tmp_path: Path, dtype: type) -> None:
    inputs, targets = sample_data(8)
    expected = loaded.session("evaluate", write_data(tmp_path / "a", inputs, targets)) and loaded.metrics()
    loaded.session("evaluate", write_data(tmp_path / "b", inputs, targets.astype(dtype)))
    assert loaded.metrics() == expected


@pytest.mark.parametrize("bad", [-1, 4, -101, 1 << 40, -(1 << 63), 1 << 32])
def test_labels_out_of_range_are_found_at_the_start(loaded: Runner, tmp_path: Path, bad: int) -> None:
    inputs, targets = sample_data(50)
    targets[[37, 41]] = bad
    data = write_data(tmp_path / "data", inputs, targets)
    why = start_fails(loaded, Status.BAD_LABEL, data)
    assert why.startswith(f"targets.npy: sample 37 has {bad}, expected 0 to 3")


@pytest.mark.parametrize(("bad", "dtype"), [(np.nan, "f4"), (np.inf, "f4"), (-np.inf, "f8"), (np.nan, "f8"), (1e300, "f8")])
def test_numbers_that_are_none_are_named(loaded: Runner, tmp_path: Path, bad: float, dtype: str) -> None:
    inputs, targets = sample_data(20)
    inputs = inputs.astype(dtype)
    inputs[9, 2] = bad
    data = write_data(tmp_path / "data", inputs, targets)
    loaded.ask(START, **TRAIN, data=data)
    status = loaded.finish()
    assert (status["state"], status["rc"], status["step"]) == ("failed", Status.NOT_FINITE, 2)
    assert status["why"] == "inputs.npy: sample 9 holds NaN or infinity"
    assert len(loaded.records()) == 2


def test_a_bad_sample_leaves_no_half_accumulation(runner: Runner, tmp_path: Path) -> None:
    """The third micro-batch of the first update is bad: the state is as if nothing had run."""
    classifier = Classifier(accumulate=3)
    classifier.program().save(tmp_path / "m.ekp")
    inputs, targets = sample_data(12)
    broken = inputs.copy()
    broken[10, 0] = np.nan
    runner.ask(LOAD, path=str(tmp_path / "m.ekp"))
    runner.ask(SAVE, path=str(tmp_path / "before.ekc"))
    runner.ask(START, **TRAIN, data=write_data(tmp_path / "data", broken, targets))
    assert runner.finish()["rc"] == Status.NOT_FINITE
    runner.ask(SAVE, path=str(tmp_path / "after.ekc"))
    assert (tmp_path / "before.ekc").read_bytes()[128:] == (tmp_path / "after.ekc").read_bytes()[128:]


def test_too_few_samples(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(3))
    assert "has 3 samples, one step takes 4" in start_fails(loaded, Status.EMPTY_DATA, data)
    loaded.session("evaluate", data)
    write_data(tmp_path / "data", *sample_data(0))
    start_fails(loaded, Status.EMPTY_DATA, data, kind="evaluate")
    start_fails(loaded, Status.EMPTY_DATA, data, kind="predict", out=str(tmp_path / "o.npy"))
    assert not (tmp_path / "o.npy").exists()
    assert leftovers(tmp_path) == []


def test_a_start_that_fails_changes_nothing(loaded: Runner, tmp_path: Path) -> None:
    good = write_data(tmp_path / "good", *sample_data(8))
    loaded.session("train", good)
    before = loaded.ask(STATUS)
    loaded.ask(SAVE, path=str(tmp_path / "a.ekc"))
    start_fails(loaded, Status.NOT_FOUND, tmp_path / "none", reset=True)
    start_fails(loaded, Status.NOT_FOUND, good, resume=str(tmp_path / "none.ekc"), reset=True)
    assert loaded.ask(STATUS) == before
    loaded.ask(SAVE, path=str(tmp_path / "b.ekc"))
    assert (tmp_path / "a.ekc").read_bytes() == (tmp_path / "b.ekc").read_bytes()


def test_a_data_file_cut_while_it_is_in_use(command: tuple[str, ...], model: str, tmp_path: Path) -> None:
    """Nothing can go on then: the runner ends, and says why."""
    if len(command) > 1:
        pytest.skip("the emulator handles SIGBUS itself")
    data = write_data(tmp_path / "data", *sample_data(100_000))
    runner = Runner(*command, "--threads", "1")
    runner.ask(LOAD, path=model)
    runner.ask(START, **(TRAIN | {"epochs": 10**6}), data=data)
    os.truncate(tmp_path / "data" / "inputs.npy", 4096)
    assert runner.process.wait(20) == 1
    assert runner.process.stderr is not None
    assert b"became shorter" in runner.process.stderr.read()
    runner.close()


# ---- checkpoints ----


def test_checkpoints_that_are_none(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(20))
    path = tmp_path / "c.ekc"
    loaded.session("train", data, checkpoint=str(path))
    good, bad = path.read_bytes(), tmp_path / "bad.ekc"
    assert not leftovers(tmp_path)
    damaged = [good[:n] for n in (0, 7, 127, 128, len(good) - 1)] + [good + b"\0"]
    for at in (0, 8, 12, 16, 24, 56, 88, 104, 112, 120, 128, len(good) - 1):
        flipped = bytearray(good)
        flipped[at] ^= 1
        damaged.append(bytes(flipped))
    for content in damaged:
        bad.write_bytes(content)
        for key in ("resume", "state"):
            assert str(bad) in start_fails(loaded, Status.BAD_CHECKPOINT, data, **{key: str(bad)})


def test_checkpoints_of_other_programs_and_data_sets(loaded: Runner, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(20))
    path = str(tmp_path / "c.ekc")
    loaded.session("train", data, checkpoint=path, steps=3)
    other = write_data(tmp_path / "other", *sample_data(9))
    assert "not a place in this data set" in start_fails(loaded, Status.BAD_CHECKPOINT, other, resume=path)
    Classifier(seed=9).program().save(tmp_path / "b.ekp")
    loaded.ask(LOAD, path=str(tmp_path / "b.ekp"))
    assert "another program" in start_fails(loaded, Status.BAD_CHECKPOINT, data, resume=path)


# ---- disks ----


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 8 KiB of room."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def test_a_full_disk_is_named_and_nothing_half_written_stays(loaded: Runner, tmp_path: Path, full_disk: Path) -> None:
    data = write_data(tmp_path / "data", *sample_data(4000))
    saved = full_disk / "c.ekc"
    loaded.ask(SAVE, path=str(saved))
    before = saved.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        fill(full_disk / "filler")
    assert "No space left" in loaded.fails(Status.NO_SPACE, SAVE, path=str(saved))
    loaded.ask(START, **TRAIN, data=data, checkpoint=str(saved), every=3)
    status = loaded.finish()
    assert (status["state"], status["rc"], status["step"]) == ("failed", Status.NO_SPACE, 3)
    start_fails(loaded, Status.NO_SPACE, data, kind="predict", out=str(full_disk / "out.npy"))
    assert saved.read_bytes() == before
    assert sorted(p.name for p in full_disk.iterdir()) == ["c.ekc", "filler"]


def test_a_prediction_that_outgrows_the_disk(loaded: Runner, tmp_path: Path, full_disk: Path) -> None:
    data = write_data(tmp_path / "data", sample_data(4000)[0])
    loaded.ask(START, kind="predict", data=data, out=str(full_disk / "out.npy"))
    assert loaded.finish()["rc"] == Status.NO_SPACE
    assert list(full_disk.iterdir()) == []


def test_a_file_size_limit_is_no_signal(new_runner: Callable[..., Runner], model: str, tmp_path: Path) -> None:
    runner = new_runner(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    runner.ask(LOAD, path=model)
    runner.fails(Status.NO_SPACE, SAVE, path=str(tmp_path / "c.ekc"))
    assert not list(tmp_path.glob("c.ekc*"))


def test_places_where_nothing_can_be_written(loaded: Runner, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in loaded.fails(Status.NOT_FOUND, SAVE, path=str(tmp_path / "none" / "c.ekc"))
    (tmp_path / "folder").mkdir()
    loaded.fails(Status.IO, SAVE, path=str(tmp_path / "folder"))
    (tmp_path / "file").write_text("")
    loaded.fails(Status.NOT_FOUND, SAVE, path=str(tmp_path / "file" / "c.ekc"))
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_files_that_may_not_be_used(command: tuple[str, ...], model: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        copy = Path(shutil.copy(command[-1], folder / "runner"))
        copy.chmod(0o755)
        for file in ("secret.ekp", "open.ekp"):
            shutil.copy(model, folder / file)
        (folder / "secret.ekp").chmod(0)
        (folder / "open.ekp").chmod(0o644)
        runner = Runner(*command[:-1], str(copy), before=lambda: os.setuid(65534))
        runner.fails(Status.PERMISSION, LOAD, path=str(folder / "secret.ekp"))
        runner.ask(LOAD, path=str(folder / "open.ekp"))
        runner.fails(Status.PERMISSION, SAVE, path=str(folder / "c.ekc"))
        assert runner.close() == 0
