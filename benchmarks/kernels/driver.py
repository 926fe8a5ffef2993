"""Runs a heavy CPU kernel of any instruction set on arrays, through ``driver.c``; foreign ones in an emulator."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "epilogue.c",
    "gemm.c",
    "gemm_few.c",
    "gemm_outer.c",
    "gemm_pack.c",
    "gemm_gather.c",
    "linear.c",
    "conv.c",
    "depthwise.c",
    "depthwise_3x3.c",
    "depthwise_row.c",
    "winograd.c",
    "winograd_grad.c",
    "real.c",
    "update.c",
)
COMMON = ("-std=gnu11", "-O3", "-fno-math-errno", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror")
LINK = ("-static", "-s", "-lpthread")
TARGETS: Mapping[str, Sequence[str]] = {
    "avx512": ("-target", "x86_64-linux-musl", "-mcpu=x86_64_v4", "-mprefer-vector-width=512"),
    "avx2": ("-target", "x86_64-linux-musl", "-mcpu=x86_64_v3"),
    "plain": ("-target", "x86_64-linux-musl"),
    "neon": ("-target", "aarch64-linux-musl", "-mcpu=cortex_a72"),
}
DTYPES = {"float32": 1, "int32": 2, "uint8": 3, "bits": 4}
CONSTANT, ARENA = 2, 1
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Bits:
    """A bit mask as the kernels see it: the last axis is packed into bytes, row by row."""

    truth: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Out:
    """A result to ask for: its shape, and whether it is a bit mask."""

    shape: tuple[int, ...]
    bits: bool = False


@dataclass(frozen=True)
class Case:
    """One run of a kernel. ``inputs`` and ``outputs`` are by operand position, None where absent."""

    opcode: int
    inputs: Sequence[Array | Bits | None]
    outputs: Sequence[Out | None]
    attrs: Sequence[int] = ()
    constant: Sequence[int] = ()  #: inputs that are frozen weights
    alias: int | None = None  #: the input that output 0 overwrites
    threads: int = 1
    repeats: int = 1


@dataclass(frozen=True)
class Answer:
    outputs: list[Array | None] = field(repr=False)
    ns: int
    scratch: int


def build(isa: str) -> Path:
    """The driver for an instruction set, compiled unless the same sources already were."""
    folder = ROOT / "backends" / "cpu"
    digest = hashlib.sha256(repr((COMMON, LINK, TARGETS[isa])).encode())
    headers = sorted(folder.glob("*.h")) + sorted((ROOT / "firmware" / "core").glob("*.h"))
    sources = [folder / name for name in SOURCES] + [Path(__file__).with_name("driver.c")]
    for path in [*headers, *sources]:
        digest.update(path.read_bytes())
    binary = Path(tempfile.gettempdir()) / f"edgekit-kernels-{isa}-{digest.hexdigest()[:16]}"
    if not binary.exists():
        partial = binary.with_suffix(f".{os.getpid()}")  # others may build the same
        options = [*COMMON, *LINK, *TARGETS[isa], f"-DEK_ISA={isa}", f"-I{ROOT / 'firmware' / 'core'}"]
        subprocess.run([sys.executable, "-m", "ziglang", "cc", *options, "-o", str(partial), *map(str, sources)], check=True)
        partial.rename(binary)
    return binary


def _tensor(dtype: str, shape: Sequence[int], storage: int, size: int) -> bytes:
    dims = [*shape, *([1] * (6 - len(shape)))]
    return struct.pack("<BBBBI6IQQ", DTYPES[dtype], len(shape), storage, 0, 0, *dims, 0, size)


def _input(value: Array | Bits | None, storage: int) -> bytes:
    if value is None:
        return struct.pack("<I", 0)
    if isinstance(value, Bits):
        data = np.packbits(value.truth, axis=-1, bitorder="little").tobytes()
        return struct.pack("<I", 1) + _tensor("bits", value.truth.shape, storage, len(data)) + data
    data = value.tobytes()
    return struct.pack("<I", 1) + _tensor(str(value.dtype), value.shape, storage, len(data)) + data


def _bytes_of(out: Out) -> int:
    rows = int(np.prod(out.shape[:-1], dtype=np.int64))
    return rows * ((out.shape[-1] + 7) // 8) if out.bits else rows * out.shape[-1] * 4


def _output(out: Out | None) -> bytes:
    if out is None:
        return struct.pack("<I", 0)
    return struct.pack("<I", 1) + _tensor("bits" if out.bits else "float32", out.shape, ARENA, _bytes_of(out))


def encode(case: Case) -> bytes:
    attrs = [*case.attrs, *([0] * (13 - len(case.attrs)))]
    alias = 0 if case.alias is None else case.alias + 1
    head = struct.pack("<4I13i", case.opcode, case.threads, case.repeats, alias, *attrs)
    inputs = [*case.inputs, *([None] * (8 - len(case.inputs)))]
    outputs = [*case.outputs, *([None] * (4 - len(case.outputs)))]
    packed = [_input(v, CONSTANT if i in case.constant else ARENA) for i, v in enumerate(inputs)]
    return b"".join([head, *packed, *map(_output, outputs)])


def _decode(case: Case, data: memoryview) -> tuple[Answer, memoryview]:
    ns, scratch = struct.unpack_from("<QQ", data)
    data = data[16:]
    outputs: list[Array | None] = []
    for out in case.outputs:
        if out is None:
            outputs.append(None)
            continue
        raw, data = data[: _bytes_of(out)], data[_bytes_of(out) :]
        if out.bits:
            rows = np.frombuffer(raw, np.uint8).reshape(*out.shape[:-1], -1)
            outputs.append(np.unpackbits(rows, axis=-1, bitorder="little")[..., : out.shape[-1]].astype(np.bool_))
        else:
            outputs.append(np.frombuffer(raw, np.float32).reshape(out.shape))
    return Answer(outputs, ns, scratch), data


def run(isa: str, cases: Sequence[Case]) -> list[Answer]:
    """Run the cases in order in one process.

    Raises:
        subprocess.CalledProcessError: the driver failed or a kernel touched memory that is not its own.
    """
    command = [str(build(isa))]
    if isa == "neon":
        command.insert(0, "qemu-aarch64-static")
    done = subprocess.run(command, input=b"".join(map(encode, cases)), stdout=subprocess.PIPE, check=True)
    data, answers = memoryview(done.stdout), []
    for case in cases:
        answer, data = _decode(case, data)
        answers.append(answer)
    return answers
