"""What ek_program_open accepts and refuses, beside the Python verifier."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import IntegrityError
from edgekit.graph.entry import Role
from edgekit.graph.op import Op
from edgekit.graph.ops import OPS
from edgekit.graph.ops.conv import Algorithm, Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from edgekit.graph.value import DType
from edgekit.program import Architecture, Backend, Program
from edgekit.program import format as f
from edgekit.program.attributes import fields_of
from edgekit.protocol.status import Status
from tests.firmware.samples import SAMPLES, Sample, f32, flips, program_of, seal, training_program
from tests.firmware.tools import verify
from tests.runner.programs import prefixed

#: C refuses these although Op.infer does not: rules of the format that keep kernels small and safe. It also checks every dtype.
STRICTER = ("only relu and relu6 have a mask", "is not finite", "too large", "is out of range", "permutation", "entries")


@pytest.fixture(scope="module")
def trained() -> bytes:
    return training_program().data


def test_every_op_has_a_sample() -> None:
    """Reshape is a view and never an op record."""
    assert {s.op.code for s in SAMPLES} == set(OPS) - {0, 21}


def test_accepts_valid_programs(tmp_path: Path, trained: bytes) -> None:
    programs = [program_of(s).data for s in SAMPLES] + [trained]
    for sample, verdict in zip([*SAMPLES, "training"], verify(programs, tmp_path), strict=True):
        assert verdict.status is Status.OK, f"{sample}: {verdict.text}"


def header(**fields: int) -> Callable[[bytes], bytes]:
    """Change u32 or u64 fields of the header by their offset, named u32_64 or u64_16."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for name, value in fields.items():
            kind, at = name.split("_")
            struct.pack_into("<I" if kind == "u32" else "<Q", changed, int(at), value)
        return seal(bytes(changed))

    return change


def table(index: int, data: bytes) -> int:
    """Offset of the tensor, op, entry or port table."""
    counts = struct.unpack_from("<4I", data, 64)
    at = f.HEADER.size
    for record, count in zip((f.TENSOR, f.OP, f.ENTRY, f.PORT)[:index], counts, strict=False):
        at = f.align(at + record.size * count)
    return at


def record(index: int, format_: str, offset: int, value: int) -> Callable[[bytes], bytes]:
    """Change a field of the first record of a table."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into(format_, changed, table(index, data) + offset, value)
        return seal(bytes(changed))

    return change


TENSORS, OPERATIONS, ENTRIES, PORTS = range(4)
HUGE = 1 << 63
FAULTS: dict[str, tuple[Callable[[bytes], bytes], Status, str]] = {
    "empty": (lambda _: b"", Status.BAD_PROGRAM, "begin"),
    "other file": (lambda d: b"\x7fELF" + d[4:], Status.BAD_PROGRAM, "begin"),
    "only magic": (lambda d: d[:8], Status.BAD_DIGEST, "cut"),
    "cut": (lambda d: d[:-64], Status.BAD_DIGEST, "cut"),
    "longer": (lambda d: d + bytes(64), Status.BAD_DIGEST, "bytes"),
    "changed": (lambda d: d[:-65] + bytes([d[-65] ^ 1]) + d[-64:], Status.BAD_DIGEST, "changed"),
    "version": (header(u32_8=2), Status.BAD_VERSION, "version 2"),
    "header bytes": (header(u32_12=191), Status.BAD_PROGRAM, "header"),
    "armv7e-m": (header(u32_56=Architecture.ARMV7EM), Status.WRONG_BOARD, "armv7e-m"),
    "torch": (header(u32_60=Backend.TORCH), Status.WRONG_BOARD, "torch"),
    "backend 7": (header(u32_60=7), Status.WRONG_BOARD, "unknown"),
    "many tensors": (header(u32_64=0xFFFF), Status.BAD_PROGRAM, "table"),
    "all tensors": (header(u32_64=0xFFFFFFFF), Status.BAD_PROGRAM, "table"),
    "all ops": (header(u32_68=0xFFFFFFFF), Status.BAD_PROGRAM, "table"),
    "all entries": (header(u32_72=0xFFFFFFFF), Status.BAD_PROGRAM, "table"),
    "all ports": (header(u32_76=0xFFFFFFFF), Status.BAD_PROGRAM, "table"),
    "no arena": (header(u64_80=0), Status.BAD_PROGRAM, "region"),
    "no state": (header(u64_88=0), Status.BAD_PROGRAM, "state"),
    "constants before the tables": (header(u64_96=192), Status.BAD_PROGRAM, "constants"),
    "constants not aligned": (
        lambda d: header(u64_96=struct.unpack_from("<Q", d, 96)[0] + 4)(d),
        Status.BAD_PROGRAM,
        "constants",
    ),
    "constants past the end": (header(u64_104=HUGE), Status.BAD_PROGRAM, "constants"),
    "constants wrap": (header(u64_96=(1 << 64) - 64, u64_104=128), Status.BAD_PROGRAM, "constants"),
    "state past the end": (header(u64_120=HUGE), Status.BAD_PROGRAM, "state"),
    "metadata past the end": (header(u64_136=HUGE), Status.BAD_PROGRAM, "metadata"),
    "no accumulation": (header(u32_144=0), Status.BAD_PROGRAM, "accumulate"),
    "accumulation without update": (header(u32_144=2), Status.BAD_PROGRAM, "update entry"),
    "no batch": (header(u32_148=0), Status.BAD_PROGRAM, "batch"),
    "reserved": (header(u32_188=1), Status.BAD_PROGRAM, "zero"),
    "dtype": (record(TENSORS, "<B", 0, 6), Status.BAD_PROGRAM, "tensor 0: its dtype"),
    "rank": (record(TENSORS, "<B", 1, 7), Status.BAD_PROGRAM, "tensor 0"),
    "storage": (record(TENSORS, "<B", 2, 0), Status.BAD_PROGRAM, "tensor 0"),
    "tensor reserved": (record(TENSORS, "<B", 3, 1), Status.BAD_PROGRAM, "tensor 0: a field"),
    "axis of 0": (record(TENSORS, "<I", 8, 0), Status.BAD_PROGRAM, "tensor 0: its shape"),
    "axis of 2^32 - 1": (record(TENSORS, "<I", 8, 0xFFFFFFFF), Status.BAD_PROGRAM, "tensor 0: its shape"),
    "axis past the rank": (record(TENSORS, "<I", 28, 2), Status.BAD_PROGRAM, "tensor 0: its shape"),
    "tensor not aligned": (record(TENSORS, "<Q", 32, 4), Status.BAD_PROGRAM, "tensor 0: it is not inside"),
    "tensor past its region": (record(TENSORS, "<Q", 32, 1 << 40), Status.BAD_PROGRAM, "tensor 0: it is not inside"),
    "tensor offset wraps": (record(TENSORS, "<Q", 32, (1 << 64) - 64), Status.BAD_PROGRAM, "tensor 0: it is not inside"),
    "tensor bytes": (record(TENSORS, "<Q", 40, 4), Status.BAD_PROGRAM, "tensor 0: its shape"),
    "opcode 0": (record(OPERATIONS, "<H", 0, 0), Status.UNSUPPORTED_OP, "op 0"),
    "opcode 999": (record(OPERATIONS, "<H", 0, 999), Status.UNSUPPORTED_OP, "op 0"),
    "op reserved": (record(OPERATIONS, "<H", 2, 1), Status.BAD_PROGRAM, "zero"),
    "the last attribute word": (record(OPERATIONS, "<I", 76, 1), Status.BAD_PROGRAM, "attribute word"),
    "operand missing": (record(OPERATIONS, "<H", 4, 0xFFFF), Status.BAD_PROGRAM, "missing"),
    "operand out of range": (record(OPERATIONS, "<H", 4, 0xFFFE), Status.BAD_PROGRAM, "no tensor"),
    "operand too many": (record(OPERATIONS, "<H", 4 + 2 * 7, 0), Status.BAD_PROGRAM, "too many"),
    "result missing": (record(OPERATIONS, "<H", 20, 0xFFFF), Status.BAD_PROGRAM, "missing"),
    "result into the state": (record(OPERATIONS, "<H", 20, 0), Status.BAD_PROGRAM, "not in the arena"),
    "attribute past the last": (record(OPERATIONS, "<I", 28 + 44, 1), Status.BAD_PROGRAM, "attribute word"),
    "activation": (record(OPERATIONS, "<i", 28, 17), Status.BAD_PROGRAM, "activation is unknown"),
    "negative activation": (record(OPERATIONS, "<i", 28, -1), Status.BAD_PROGRAM, "activation is unknown"),
    "entry kind": (record(ENTRIES, "<I", 0, 7), Status.BAD_PROGRAM, "entry 0"),
    "a prefix alone": (record(ENTRIES, "<I", 0, 5), Status.BAD_PROGRAM, "not all there"),
    "entry twice": (record(ENTRIES, "<I", 0, 3), Status.BAD_PROGRAM, "twice"),
    "entry's first op": (record(ENTRIES, "<I", 4, 0xFFFFFFFF), Status.BAD_PROGRAM, "entry 0"),
    "entry's ops": (record(ENTRIES, "<I", 8, 0xFFFFFFFF), Status.BAD_PROGRAM, "entry 0"),
    "entry's first port": (record(ENTRIES, "<I", 12, 0xFFFFFFFF), Status.BAD_PROGRAM, "entry 0"),
    "entry's ports": (record(ENTRIES, "<I", 16, 0xFFFFFFFF), Status.BAD_PROGRAM, "entry 0"),
    "entry reserved": (record(ENTRIES, "<I", 20, 1), Status.BAD_PROGRAM, "entry 0"),
    "entry's arena": (record(ENTRIES, "<Q", 24, 1 << 40), Status.BAD_PROGRAM, "entry 0"),
    "port role": (record(PORTS, "<H", 0, 9), Status.BAD_PROGRAM, "role"),
    "port is the step": (record(PORTS, "<H", 0, 6), Status.BAD_PROGRAM, "step"),
    "port is the loss": (record(PORTS, "<H", 0, 3), Status.BAD_PROGRAM, "scalar"),
    "port tensor": (record(PORTS, "<H", 4, 0xFFFF), Status.BAD_PROGRAM, "no tensor"),
    "port into the state": (record(PORTS, "<H", 4, 0), Status.BAD_PROGRAM, "not in the arena"),
    "port reserved": (record(PORTS, "<H", 6, 1), Status.BAD_PROGRAM, "zero"),
    "port range": (record(PORTS, "<i", 8, 1), Status.BAD_PROGRAM, "empty"),
    "port twice": (record(PORTS, "<H", 0, 2), Status.BAD_PROGRAM, "twice"),
}


def test_refuses_each_fault(tmp_path: Path, trained: bytes) -> None:
    programs = [change(trained) for change, _, _ in FAULTS.values()]
    for (name, (_, status, text)), verdict in zip(FAULTS.items(), verify(programs, tmp_path), strict=True):
        assert (verdict.status, text in verdict.text) == (status, True), f"{name}: {verdict}"


def changed_port(role: Role, offset: int, value: int) -> Callable[[bytes], bytes]:
    """Change a u16 of the port that has this role."""

    def change(data: bytes) -> bytes:
        ports, count = table(PORTS, data), struct.unpack_from("<I", data, 76)[0]
        places = (ports + f.PORT.size * i for i in range(count))
        at = next(place for place in places if struct.unpack_from("<H", data, place)[0] == role)
        changed = bytearray(data)
        struct.pack_into("<H", changed, at + offset, value)
        return seal(bytes(changed))

    return change


#: of a program with prefix and suffix
HALVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another array made": (changed_port(Role.BOUNDARY, 2, 1), "is not the same in both"),
    "another array cached": (changed_port(Role.CACHED, 2, 1), "is not the same in both"),
    "nothing made": (changed_port(Role.BOUNDARY, 0, Role.OUTPUT), "starts from other arrays"),
    "nothing cached": (changed_port(Role.CACHED, 0, Role.INPUT), "starts from other arrays"),
    "a state cached": (changed_port(Role.CACHED, 4, 0), "not in the arena"),
}


def test_refuses_halves_that_do_not_fit(tmp_path: Path) -> None:
    whole = prefixed().data
    programs = [whole, *(change(whole) for change, _ in HALVES.values())]
    first, *verdicts = verify(programs, tmp_path)
    assert first.status is Status.OK, first.text
    for (name, (change, text)), verdict in zip(HALVES.items(), verdicts, strict=True):
        assert (verdict.status, text in verdict.text) == (Status.BAD_PROGRAM, True), f"{name}: {verdict}"
        with pytest.raises(IntegrityError):
            Program.from_bytes(change(whole))


def test_python_refuses_the_same_faults(trained: bytes) -> None:
    """All but those that are no matter of the file itself: which board it is for."""
    for name, (change, status, _) in FAULTS.items():
        if status is not Status.WRONG_BOARD and "accumulation without" not in name:
            with pytest.raises(IntegrityError):
                Program.from_bytes(change(trained))


def test_agrees_with_infer(tmp_path: Path) -> None:
    """Random changes of every op's tensors, operands and attributes: C accepts nothing that Python refuses, and refuses what
    Python accepts only by the rules in STRICTER."""
    rng = np.random.default_rng(7)
    originals = [data for sample in SAMPLES for data in [program_of(sample).data] * 100]
    changed = [_change(data, rng) for data in originals]
    refused = accepted = 0
    for original, data, verdict in zip(originals, changed, verify(changed, tmp_path), strict=True):
        complaint = _python_complaint(data)
        if complaint:
            assert verdict.status is not Status.OK, f"C accepts what Python refuses: {complaint}"
        elif verdict.status is not Status.OK:
            stricter = any(text in verdict.text for text in STRICTER)
            assert stricter or _dtypes(data) != _dtypes(original), f"C refuses what Python accepts: {verdict}"
        refused += bool(complaint)
        accepted += verdict.status is Status.OK
    assert refused > 500
    assert accepted > 100


#: an op with a choice of algorithm, the word that says which, and what makes Winograd's impossible
_WINOGRAD = [sample for sample in SAMPLES if getattr(sample.op, "algorithm", None) is Algorithm.WINOGRAD]
_WRONG_WORDS = {"stride": 2, "dilation": 2, "groups": 2, "algorithm": 3}


def test_winograds_algorithm_only_where_it_fits(tmp_path: Path) -> None:
    """One attribute changed, or the channels: C and Python refuse alike; as a matrix product it is a program again."""
    assert len(_WINOGRAD) == 3
    for sample in _WINOGRAD:
        good = program_of(sample).data
        for name, value in _WRONG_WORDS.items():
            if name in ("stride", "dilation"):
                words = dict.fromkeys((_word(type(sample.op), name), _word(type(sample.op), name) + 1), value)
            else:
                words = {_word(type(sample.op), name): value}
            bad = _with_words(good, words)
            assert verify([bad], tmp_path)[0].status is Status.BAD_PROGRAM, f"{sample}: {name}"
            assert _python_complaint(bad), f"{sample}: {name}"
    for op, operands in (
        (Conv2d(), (f32(1, 5, 5, 24), f32(3, 3, 24, 16), None, None)),
        (Conv2d(), (f32(1, 5, 5, 16), f32(3, 2, 16, 16), None, None)),
        (Conv2dInputGrad((5, 5)), (f32(1, 3, 3, 8), f32(3, 3, 16, 8), None, None)),
        (Conv2dWeightGrad((3, 3)), (f32(1, 5, 5, 16), f32(1, 3, 3, 8))),
        (Conv2dWeightGrad((3, 3)), (f32(1, 5, 5, 8), f32(1, 3, 3, 16))),
    ):
        product = program_of(Sample(replace(op, algorithm=Algorithm.PRODUCT), operands)).data
        winograd = _with_words(product, {_word(type(op), "algorithm"): Algorithm.WINOGRAD})
        first, second = verify([product, winograd], tmp_path)
        assert (first.status, second.status) == (Status.OK, Status.BAD_PROGRAM), str(operands)
        assert "Winograd" in second.text
        assert "Winograd" in _python_complaint(winograd)


def _word(cls: type[Op], name: str) -> int:
    """The number of an attribute's first word."""
    before = itertools.takewhile(lambda field: field.name != name, fields_of(cls))
    return sum(field.words for field in before)


def _with_words(data: bytes, words: dict[int, int]) -> bytes:
    """The first op's attribute words changed."""
    for at, value in words.items():
        data = record(OPERATIONS, "<i", 28 + 4 * at, value)(data)
    return data


def _dtypes(data: bytes) -> list[int]:
    """The element types of the op's operands and results."""
    numbers = struct.unpack_from("<12H", data, table(OPERATIONS, data) + 4)
    return [data[table(TENSORS, data) + f.TENSOR.size * n] for n in numbers if n != f.ABSENT]


def _python_complaint(data: bytes) -> str:
    try:
        Program.from_bytes(data)
    except IntegrityError as error:
        return str(error)
    return ""


def _change(data: bytes, rng: np.random.Generator) -> bytes:
    """Change one to three things of the tensors or of the op, so that sizes and regions still fit."""
    changed = bytearray(data)
    struct.pack_into("<Q", changed, 80, 1 << 20)  # larger tensors still fit the arena
    tensors, at, op = struct.unpack_from("<I", data, 64)[0], table(TENSORS, data), table(OPERATIONS, data)
    for _ in range(rng.integers(1, 4)):
        match rng.integers(6):
            case 0:
                attribute = op + 28 + 4 * int(rng.integers(13))
                struct.pack_into("<i", changed, attribute, int(rng.choice([-1, 0, 1, 2, 3, 4, 100, 1 << 30, -(1 << 31)])))
            case 1:
                slot = op + 4 + 2 * int(rng.integers(12))
                struct.pack_into("<H", changed, slot, int(rng.choice([f.ABSENT, rng.integers(tensors)])))
            case _:
                _change_tensor(changed, at + f.TENSOR.size * int(rng.integers(tensors)), rng)
    return seal(bytes(changed))


def _change_tensor(data: bytearray, at: int, rng: np.random.Generator) -> None:
    dtype, rank, storage, zero0, zero1, *dims, offset, _ = f.TENSOR.unpack_from(data, at)
    match rng.integers(3):
        case 0:
            dtype = int(rng.integers(1, 6))
        case 1 if rank > 0:
            dims[rng.integers(rank)] = int(rng.integers(1, 9))
        case _:
            rank = int(np.clip(rank + rng.choice([-1, 1]), 0, 6))
            dims[rank:] = [1] * (6 - rank)
    nbytes = DType(dtype).nbytes(tuple(dims[:rank]))
    f.TENSOR.pack_into(data, at, dtype, rank, storage, zero0, zero1, *dims, offset, nbytes)


def test_survives_flipped_bits(tmp_path: Path, trained: bytes) -> None:
    """Every bit of the header, and bits everywhere else; with a right digest. What still opens also runs."""
    rng = np.random.default_rng(11)
    places = [*range(f.HEADER.size), *rng.integers(f.HEADER.size, len(trained), 150).tolist()]
    verdicts = verify([flip for at in places for flip in flips(trained, at)], tmp_path, "--run")
    assert sum(v.status is Status.OK for v in verdicts) > 20
    assert sum(v.status is Status.BAD_PROGRAM for v in verdicts) > 300


def test_digest_is_sha256(trained: bytes) -> None:
    assert trained[24:56] == hashlib.sha256(trained[56:]).digest()
