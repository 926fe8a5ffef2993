"""Writing a Program and reading it back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import IntegrityError, StorageError
from edgekit.graph.builder import Builder
from edgekit.graph.entry import Entry, Port, Role
from edgekit.graph.graph import Origin
from edgekit.graph.ops.function import Function
from edgekit.graph.ops.linear import Linear, LinearWeightGrad
from edgekit.graph.ops.shape import Reshape
from edgekit.graph.ops.update import SgdUpdate
from edgekit.graph.value import DType, Type
from edgekit.program import Program, Storage, load, write_program
from edgekit.program.arrays import decode, encode


def small_program() -> Program:
    rng = np.random.default_rng(0)
    b = Builder(origin=Origin("head", "net.py:3"))
    x = b.input("x", (4, 2, 3))
    w = b.state("w", rng.standard_normal((6, 5)))
    velocity = b.state("w.velocity", np.zeros((6, 5)))
    bias = b.constant("bias", rng.standard_normal(5))
    flat = b(Reshape.to((4, 6)), x)
    y, _mask = b.emit(Linear(Function.RELU), flat, w, bias, results=(0, 1), name="y")
    dw = b(LinearWeightGrad(), flat, y)
    b.emit(SgdUpdate(0.1, 0.9), w, dw, velocity, results=())
    ports = (Port(Role.INPUT, x), Port(Role.OUTPUT, y))
    return write_program({"train_step": Entry(b.graph, ports)}, batch=4, metadata={"model": "tiny"})


def test_everything_comes_back() -> None:
    program = small_program()
    again = Program.from_bytes(program.data)
    assert again.tensors == program.tensors
    assert again.ops == program.ops
    entry = again.entries["train_step"]
    assert [o.op for o in entry.ops] == [Linear(Function.RELU), LinearWeightGrad(), SgdUpdate(np.float32(0.1), np.float32(0.9))]
    assert entry.ops[0].origin == Origin("head", "net.py:3")
    assert again.metadata["model"] == "tiny"
    assert again.header.batch == 4
    flat = again.tensor("w")
    assert flat.storage is Storage.STATE
    assert flat.type == Type((6, 5))
    np.testing.assert_array_equal(again.state_init("w"), np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32))
    np.testing.assert_array_equal(again.state_init("w.velocity"), np.zeros((6, 5)))


def test_a_reshape_is_a_second_tensor_at_the_same_place() -> None:
    program = small_program()
    view, x = program.tensors[program.ops[0].inputs[0]], program.tensor("x")
    assert (view.storage, view.offset) == (x.storage, x.offset)
    assert view.type.shape == (4, 6)


def test_zero_states_take_no_bytes_of_the_file() -> None:
    program = small_program()
    assert program.header.state_init_bytes == 128  # 6 * 5 floats, aligned; the velocity is not there
    assert program.header.state_bytes == 256


def test_the_same_bytes_every_time() -> None:
    assert small_program().sha256 == small_program().sha256


def test_save_and_load(tmp_path: Path) -> None:
    program = small_program()
    program.save(tmp_path / "a.ekp")
    assert load(tmp_path / "a.ekp").data == program.data
    assert [p.name for p in tmp_path.iterdir()] == ["a.ekp"]


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(StorageError, match="cannot write"):
        small_program().save("/no/such/folder/a.ekp")


def test_an_old_file_survives_a_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = small_program()
    program.save(tmp_path / "a.ekp")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        program.save(tmp_path / "a.ekp")
    assert [p.name for p in tmp_path.iterdir()] == ["a.ekp"]
    assert load(tmp_path / "a.ekp").data == program.data


def test_every_cut_is_an_integrity_error() -> None:
    data = small_program().data
    for size in [0, 7, 8, 100, 191, 192, len(data) // 2, len(data) - 1]:
        with pytest.raises(IntegrityError):
            Program.from_bytes(data[:size])


@given(st.integers(0), st.integers(0, 7))
def test_every_flipped_bit_is_an_integrity_error(at: int, bit: int) -> None:
    data = bytearray(small_program().data)
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(IntegrityError):
        Program.from_bytes(bytes(data))


def test_another_version_says_so() -> None:
    data = bytearray(small_program().data)
    data[8] = 2
    with pytest.raises(IntegrityError, match="version 2"):
        Program.from_bytes(bytes(data))


@given(st.integers(192, 1 << 16), st.binary(min_size=1, max_size=8))
def test_hostile_bytes_with_a_right_digest_never_crash(at: int, junk: bytes) -> None:
    data = bytearray(small_program().data)
    at %= len(data) - len(junk)
    at = max(at, 56)
    data[at : at + len(junk)] = junk
    data[24:56] = hashlib.sha256(data[56:]).digest()
    try:
        Program.from_bytes(bytes(data))
    except IntegrityError:
        return


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"ops":[1,2,3]}', b'{"tensors":[]}', b'{"ops":[["a"],["b"],["c"]]}', b"\xff", b"[" * 90]
)
def test_hostile_metadata(text: bytes) -> None:
    program = small_program()
    data, at = bytearray(program.data), program.header.metadata_offset
    data[at : at + program.header.metadata_bytes] = text.ljust(program.header.metadata_bytes)
    data[24:56] = hashlib.sha256(data[56:]).digest()
    with pytest.raises(IntegrityError, match="metadata"):
        Program.from_bytes(bytes(data))


@given(st.lists(st.integers(1, 5), max_size=4), st.sampled_from(list(DType)), st.integers(0, 9))
def test_arrays_come_back(shape: list[int], dtype: DType, seed: int) -> None:
    raw = np.random.default_rng(seed).integers(0, 2, shape)
    type_ = Type(tuple(shape), dtype)
    data = encode(raw, type_)
    assert len(data) == type_.nbytes
    np.testing.assert_array_equal(decode(data, type_), raw)
