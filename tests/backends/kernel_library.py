"""The CPU kernels but for the products as a shared library, called from Python op by op.

Operands and results end at a page that must not be touched, and what lies between a result's end and that page must stay
as it is, so a kernel that leaves its bounds is caught.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edgekit.firmware.build import CPU, INCLUDES, TARGETS

from edgekit.graph.op import Array, Op
from edgekit.graph.value import DType, Type
from edgekit.program.arrays import decode, encode
from edgekit.program.attributes import pack

SOURCES = ("unary", "dropout", "binary", "reduce", "shape", "permute", "max_pool2d", "avg_pool2d", "softmax", "loss", "update")
ISAS = {isa.name: isa.flags for isa in TARGETS[f"{platform.machine()}-linux"].isas if not isa.only}
THREADS = 3
PAGE = mmap.PAGESIZE
PATTERN = 0xA5
_DTYPES = {
    np.dtype(np.int32): DType.I32,
    np.dtype(np.uint8): DType.U8,
    np.dtype(np.int8): DType.I8,
    np.dtype(np.bool_): DType.BITS,
}
_LIBC = ctypes.CDLL(None)


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_uint8),
        ("rank", ctypes.c_uint8),
        ("storage", ctypes.c_uint8),
        ("zero0", ctypes.c_uint8),
        ("zero1", ctypes.c_uint32),
        ("dim", ctypes.c_uint32 * 6),
        ("offset", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        ("attrs", ctypes.c_char_p),
        ("in_t", ctypes.POINTER(_Tensor) * 8),
        ("out_t", ctypes.POINTER(_Tensor) * 4),
        ("in_", ctypes.c_void_p * 8),
        ("out", ctypes.c_void_p * 4),
        ("scratch", ctypes.c_void_p),
        ("prepared", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
    )


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("scratch_bytes", ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.POINTER(_Call), ctypes.c_int)),
        ("prepared_bytes", ctypes.c_void_p),
        ("prepare", ctypes.c_void_p),
        ("run", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Call))),
    )


class Guarded:
    """Memory of a value: 64-byte aligned, and what follows its 64-byte blocks faults."""

    def __init__(self, contents: bytes) -> None:
        self.bytes = len(contents)
        self.span = -(-self.bytes // 64) * 64
        size = -(-self.span // PAGE) * PAGE
        self._map = mmap.mmap(-1, size + PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        assert _LIBC.mprotect(ctypes.c_void_p(base + size), ctypes.c_size_t(PAGE), 0) == 0
        self._start = size - self.span
        self.address = base + self._start
        self._map[self._start : size] = contents + bytes([PATTERN]) * (self.span - self.bytes)

    def contents(self) -> bytes:
        """What is in it now; the slack after it must be untouched."""
        whole = self._map[self._start : self._start + self.span]
        assert whole[self.bytes :] == bytes([PATTERN]) * (self.span - self.bytes), "written past the end"
        return whole[: self.bytes]


def type_of(array: Array) -> Type:
    return Type(array.shape, _DTYPES.get(array.dtype, DType.F32))


def _record(type_: Type) -> _Tensor:
    dims = (ctypes.c_uint32 * 6)(*type_.shape, *(1,) * (6 - len(type_.shape)))
    return _Tensor(dtype=type_.dtype, rank=len(type_.shape), storage=1, dim=dims, bytes=type_.nbytes)


class KernelLibrary:
    """The kernels of one instruction set. ``run`` gives what ``Op.reference`` gives."""

    def __init__(self, path: Path, isa: str) -> None:
        self.isa = isa
        self._lib = ctypes.CDLL(str(path))
        self._lib.ek_pool_create.restype = ctypes.c_void_p
        self._pool = ctypes.c_void_p(self._lib.ek_pool_create(THREADS))
        assert self._pool

    def run(
        self, op: Op, *operands: Array | None, results: Sequence[int] = (0,), threads: int = 1, alias: int | None = None
    ) -> list[Array]:
        """The asked results, or, of an op that mutates, the new contents of those operands. ``alias``: the operand that
        result 0 overwrites."""
        kernel = _Kernel.in_dll(self._lib, f"ek_kernel_{op.name}_{self.isa}")
        types = [None if a is None else type_of(a) for a in operands]
        places = [None if a is None or t is None else Guarded(encode(a, t)) for a, t in zip(operands, types, strict=True)]
        call = _Call(attrs=pack(op), pool=self._pool if threads > 1 else None)
        records: list[Any] = []
        for i, (t, place) in enumerate(zip(types, places, strict=True)):
            if t is not None and place is not None:
                records.append(_record(t))
                call.in_t[i], call.in_[i] = ctypes.pointer(records[-1]), place.address
        made: list[tuple[Guarded, Type]] = []
        for i, t in enumerate(op.infer(*types)):
            if i not in results:
                continue
            place = places[alias] if i == 0 and alias is not None else Guarded(b"\xff" * t.nbytes)
            assert place is not None
            made.append((place, t))
            records.append(_record(t))
            call.out_t[i], call.out[i] = ctypes.pointer(records[-1]), place.address
        wanted = kernel.scratch_bytes(ctypes.byref(call), threads) if kernel.scratch_bytes else 0
        scratch = Guarded(b"\xff" * wanted)
        call.scratch = scratch.address
        kernel.run(ctypes.byref(call))
        scratch.contents()
        before = [place for i, place in enumerate(places) if place is not None and i not in op.mutates and i != alias]
        after = [encode(a, t) for i, (a, t) in enumerate(zip(operands, types, strict=True)) if a is not None and t is not None
                 and i not in op.mutates and i != alias]  # fmt: skip
        assert [place.contents() for place in before] == after, "an operand was written"
        for i in op.mutates:
            place, t = places[i], types[i]
            if place is not None and t is not None:
                made.append((place, t))
        return [decode(place.contents(), t) for place, t in made]


def usable(isa: str) -> bool:
    """Whether this processor runs it."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return {"avx512": "avx512vl", "avx2": "avx2"}.get(isa, flags[0]) in flags


def build(folder: Path, isa: str) -> KernelLibrary:
    """Compile and load the kernels of an instruction set."""
    machine = platform.machine()
    path = folder / f"kernels-{isa}.so"
    cpu = [flag.replace("-march=", "-mcpu=").replace("x86-64", "x86_64").replace("_64-v", "_64_v") for flag in ISAS[isa]]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu", "-shared", "-fPIC", "-O3", "-std=gnu11"]
    command += [
        "-fno-math-errno",
        "-ffp-contract=fast",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-lm",
        *cpu,
        f"-DEK_ISA={isa}",
    ]
    command += [f"-I{include}" for include in INCLUDES] + [str(CPU / f"{name}.c") for name in SOURCES]
    command += [str(INCLUDES[1] / "pool.c"), "-o", str(path)]
    subprocess.run(command, check=True)
    return KernelLibrary(path, isa)
