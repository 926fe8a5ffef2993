"""Data sets: checked against the program on the host, before a board sees them.

A data set is a folder of ``inputs.npy``, ``inputs_1.npy`` … and ``targets.npy``, or a mapping of these names to arrays
(NumPy arrays or CPU tensors). The first axis is the sample.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import DataError
from edgekit.files import storage_errors, write_npy
from edgekit.graph.entry import Role
from edgekit.graph.value import DType
from edgekit.program import Program
from edgekit.program.program import PortRecord


@dataclass(frozen=True)
class OnBoard:
    """A data set's folder that lies on the board and never leaves it; a relative path begins at the login's home folder."""

    path: str

    def __str__(self) -> str:
        return self.path


Dataset = Mapping[str, Any] | str | os.PathLike[str]
Array = npt.NDArray[Any]

_FLOATS = ("float32", "float64", "uint8")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
_CHUNK = 1 << 22  #: elements looked at in one go


@dataclass(frozen=True)
class CheckedData:
    """A data set that fits a program: in a folder already, or arrays that have yet to be written into one."""

    folder: Path | None
    arrays: Mapping[str, Array]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def place(self, scratch: Path) -> Path:
        """The data set's folder: where it lies, or ``scratch``, where its arrays are written now.

        Raises:
            StorageError: ``scratch`` cannot be written.
        """
        if self.folder is not None:
            return self.folder
        with storage_errors(f"cannot make {scratch}"):
            scratch.mkdir(parents=True, exist_ok=True)
        for name, array in self.arrays.items():
            write_npy(scratch / f"{name}.npy", array)
        return scratch


def check_data(dataset: Dataset, program: Program, entry: str) -> CheckedData:
    """Check a data set against an entry's ports.

    Raises:
        DataError: an array is missing, of the wrong shape or type, empty, not finite, or has a target out of range.
    """
    ports = {port_name(port): port for port in program.entries[entry].ports if port.role in (Role.INPUT, Role.TARGET)}
    folder = None if isinstance(dataset, Mapping) else Path(dataset)
    origin = f"{folder}: " if folder else ""
    arrays = _given(dataset) if isinstance(dataset, Mapping) else _files(Path(dataset), ports)
    for name, port in ports.items():
        if name not in arrays:
            have = ", ".join(arrays) or "none of them"
            raise DataError(f"{origin}{name!r} is missing", f"the program takes {', '.join(ports)}; the data set has {have}")
        _check_type(origin + name, arrays[name], port, program)
    _check_count({name: len(arrays[name]) for name in ports}, program, entry, origin)
    for name, port in ports.items():
        _check_values(origin + name, arrays[name], port, program)
    arrays = {name: arrays[name] for name in ports}
    wanted = {name: _in_int8(arrays[name], port, program) for name, port in ports.items()}
    return CheckedData(folder if all(wanted[name] is arrays[name] for name in ports) else None, wanted)


def _in_int8(array: Array, port: PortRecord, program: Program) -> Array:
    """The array as an int8 input takes it (docs/quantization.md); as it is for any other port."""
    if program.tensors[port.tensor].type.dtype is not DType.I8 or array.dtype == np.int8:
        return array
    scale, zero = map(np.float32, program.metadata["int8_inputs"][str(port.index)])
    rows = max(1, _CHUNK // max(1, array[0].size))
    parts = (array[i : i + rows].astype(np.float32) for i in range(0, len(array), rows))
    return np.concatenate([np.clip(np.rint(part / scale) + zero, -128, 127).astype(np.int8) for part in parts])


def port_name(port: PortRecord) -> str:
    """The name of a port's array in a data set."""
    if port.role is Role.TARGET:
        return "targets"
    return f"inputs_{port.index}" if port.index else "inputs"


def _given(dataset: Mapping[str, Any]) -> dict[str, Array]:
    arrays = {}
    for name, value in dataset.items():
        try:
            arrays[name] = np.asarray(value.detach() if hasattr(value, "detach") else value)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"{name} is no array: {error}", "give NumPy arrays or CPU tensors") from error
    return arrays


def _files(folder: Path, ports: Mapping[str, PortRecord]) -> dict[str, Array]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", "a data set is a folder with inputs.npy and targets.npy")
    return {name: _open(path) for name in ports if (path := folder / f"{name}.npy").exists()}


def _open(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npy: {error}", "write it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays", "write each with numpy.save into a file of its own")
    if not array.flags.c_contiguous or array.dtype.byteorder == ">":
        fix = "numpy.ascontiguousarray(array).astype(array.dtype.newbyteorder('<'))"
        raise DataError(f"{path} is not in C order and little-endian", f"save {fix}")
    return array


def _check_type(name: str, array: Array, port: PortRecord, program: Program) -> None:
    wanted = program.tensors[port.tensor].type
    whole = wanted.dtype is DType.I32
    allowed = _INTEGERS if whole else (*_FLOATS, "int8") if wanted.dtype is DType.I8 else _FLOATS
    if array.dtype.name not in allowed:
        cast = "int64" if whole else "float32"
        raise DataError(f"{name} is {array.dtype.name}, the program takes {', '.join(allowed)}", f'convert it: .astype("{cast}")')
    sample = wanted.shape[1:]
    if array.ndim == 0 or array.shape[1:] != sample:
        axes = ", ".join(map(str, ("samples", *sample)))
        raise DataError(
            f"{name} has shape {array.shape}, the program takes ({axes})", "compile with an example batch of this shape"
        )


def _check_count(samples: Mapping[str, int], program: Program, entry: str, origin: str) -> None:
    if len(set(samples.values())) > 1:
        lengths = ", ".join(f"{name} {n}" for name, n in samples.items())
        raise DataError(f"{origin}the arrays have different numbers of samples: {lengths}", "give each sample its target")
    count = next(iter(samples.values()), 0)
    if count == 0:
        raise DataError(f"{origin}the data set is empty", "give at least one sample")
    whole = program.header.batch * program.header.accumulate
    if entry == "train_step" and count < whole:
        raise DataError(f"{origin}{count} samples fill no batch of {whole}", "give more, or compile with a smaller --batch")


def _check_values(name: str, array: Array, port: PortRecord, program: Program) -> None:
    rows = max(1, _CHUNK // max(1, array[0].size))
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        if program.tensors[port.tensor].type.dtype is DType.I32:
            bad = _outside(part, port)
            why = f"out of range: the program takes {port.low} to {port.high - 1}"
            hint = "correct the data, or compile a model with an output for each class"
        else:
            bad, why = ~np.isfinite(part) if part.dtype.kind == "f" else np.zeros(1, bool), "no finite number"
            hint = "leave the sample out, or correct it"
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise DataError(f"{name} holds {part[place]} in sample {start + place[0]}, {why}", hint)


def _outside(part: Array, port: PortRecord) -> npt.NDArray[np.bool_]:
    if port.low == port.high:
        limits = np.iinfo(np.int32)
        outside = (part < limits.min) | (part > limits.max)
    else:
        outside = ((part < port.low) | (part >= port.high)) & (part != port.ignore)
    return np.asarray(outside)
